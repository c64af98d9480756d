#!/bin/bash
echo "performance: 1 x"
echo "giving up" >&2
exit 3
