# Sends a signal to CloudFormation, as cfn-signal does, by Python's standard library alone (3.6 and later). It stands in
# single quotes in a shell script, so it must not contain any. Rendering removes the comment lines.
import base64,json,sys,time
from urllib.parse import urlencode
from urllib.request import*
i="http://169.254.169.254/latest/"
n="x-aws-ec2-metadata-token"
def get(u,h,m="GET"):return urlopen(Request(u,None,h,method=m),None,30).read()
for w in 5,10,20,40,80,160,0:
 try:
  t={n:get(i+"api/token",{n+"-ttl-seconds":"60"},"PUT").decode()}
  d,g=(get(i+"dynamic/instance-identity/"+p,t) for p in("document","signature"))
  j=json.loads(d)
  q={"Action":"SignalResource","ContentType":"JSON","LogicalResourceId":"@resource@","StackName":"@stack@","Status":sys.argv[1],"UniqueId":j["instanceId"],"Version":"2010-05-15"}
  u="https://cloudformation.%s.%s/?"%(j["region"],get(i+"meta-data/services/domain",t).decode())
  a="CFN_V1 %s:%s"%(base64.b64encode(d).decode(),"".join(g.decode().split()))
  get(u+urlencode(q),{"authorization":a,"accept":"application/json"})
  break
 except Exception as e:
  try:b=e.read()
  except Exception:b=b""
  print("the signal:",e,b)
# At a scale-out, no stack waits. CloudFormation throttles with the status 400, too.
  if b"ValidationError"in b:break
  time.sleep(w)
