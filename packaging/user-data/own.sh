#!/bin/sh
# Runs the operator's own script, and signals its exit code to CloudFormation.
f=$(mktemp /root/user-data.XXXXXX)&&cat >"$f"<<'@end@'&&chmod 700 "$f"&&"$f"
@script@
@end@
c=$?
rm -f "$f"
[ $c = 0 ]&&s=SUCCESS||s=FAILURE
python3 -Ic '
@signal@' $s
exit $c
