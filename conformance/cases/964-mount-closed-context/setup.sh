chmod 0700 .
