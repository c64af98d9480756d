#!/bin/bash
echo hello from tools
