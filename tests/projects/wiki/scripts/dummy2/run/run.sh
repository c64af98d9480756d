#!/bin/bash
echo "arguments: $*"
echo "performance: 14.25 samples_per_second"
