tar --owner=0 --group=0 --mtime=@1000000 -cf t.tar q
gzip t.tar
printf 'not gzip' >> t.tar.gz
