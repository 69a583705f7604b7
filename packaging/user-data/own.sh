#!/bin/sh
# Runs the operator's own script, and signals its exit code to CloudFormation.
f=$(mktemp /root/user-data.XXXXXX)&&chmod 700 "$f"&&cat >"$f"<<'@end@'
@script@
@end@
[ $? = 0 ]&&"$f"
c=$?
rm -f "$f"
[ $c = 0 ]&&s=SUCCESS||s=FAILURE
@signal@
exit $c
