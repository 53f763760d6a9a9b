chmod 700 $ROOT/@src/dir
chmod 4755 $ROOT/@src/q
ln -s q $ROOT/@src/link
