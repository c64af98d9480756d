echo hello from tools
