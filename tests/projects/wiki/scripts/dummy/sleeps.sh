#!/bin/bash
echo "going to sleep"
sleep 600 &
sleep 600
