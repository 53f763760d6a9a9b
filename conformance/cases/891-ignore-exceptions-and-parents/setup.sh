echo 1 > a.log; echo 1 > e/x.log
