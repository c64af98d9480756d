#!/bin/bash
set -eu
echo "arguments: $*"
echo "greeting: $GREETING"
echo "runner: $MAD_MULTI_NODE_RUNNER"
[ ! -d /opt/mad ] || bash /opt/mad/tools/hello.sh
echo "performance: 1234.50 tokens_per_second"
