mkdir '[z]' 'q?' qq z
echo star >'[z]/a*'
echo ab >'[z]/ab'
echo in-z >z/wrong
echo mark >'q?/mark'
echo wrong >qq/wrong
chown 12:34 'q?/mark' 2>/dev/null || true
