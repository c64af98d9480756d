#!/bin/bash
printf 'model,performance,metric\nsmall,10.50,tps\nlarge,,tps\nhuge,nan,tps\n' >"$MAD_OUTPUT_CSV"
