ln -s a l
ln -s f lf

