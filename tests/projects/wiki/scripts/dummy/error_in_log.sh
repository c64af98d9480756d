#!/bin/bash
echo "performance: 2 x"
echo "RuntimeError: HIP error"
