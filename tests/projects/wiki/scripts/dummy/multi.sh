#!/bin/bash
cat >"../$MAD_OUTPUT_CSV" <<CSV
model, performance, metric, latency
small, 10.50, tokens_per_second, 1.5
large, 99, tokens_per_second, 8
CSV
