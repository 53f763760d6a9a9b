ln -s a l
