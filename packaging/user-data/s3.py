# Writes an S3 object to standard output, with the instance's role and from the instance's region, by Python's standard
# library alone (3.6 and later). User-data must stay below 2 KiB: hence short names and few spaces. The code stands in
# single quotes in a shell script, so it must not contain any. Rendering removes the comment lines.
import hmac,json,time
from hashlib import sha256
from urllib.request import*
# Returns the answer of the URL u to the headers h. Of S3's error it prints only the code: the rest can hold the token.
def get(u,h,m="GET"):
 try:return urlopen(Request(u,None,h,method=m),None,30).read()
 except Exception as e:exit(f"{u}: {e} "+str(getattr(e,"read",str)()).partition("<Code>")[2].split("<")[0])
# The instance metadata service, version 2: a token t first. Then the credentials c, the region r, and the host s, whose
# domain is the partition's (amazonaws.com.cn in China).
i="http://169.254.169.254/latest/"
n="x-aws-ec2-metadata-token"
t={n:get(i+"api/token",{n+"-ttl-seconds":"60"},"PUT")}
def meta(p):return get(i+"meta-data/"+p,t).decode()
p="iam/security-credentials/"
c=json.loads(meta(p+meta(p)))
r=meta("placement/region")
s=f"@bucket@s3.{r}."+meta("services/domain")
# AWS Signature Version 4: path p, query q, time t, headers h and their names n make the canonical request x, which with
# its scope d makes the string to sign x; the key k is derived from the scope's parts, the signature from it and x.
p,q="@path@","@query@"
t=time.strftime("%Y%m%dT%H%M%SZ",time.gmtime())
b="UNSIGNED-PAYLOAD"
h={"host":s,"x-amz-content-sha256":b,"x-amz-date":t,"x-amz-security-token":c["Token"]}
n=";".join(h)
x="\n".join(["GET",p,q,*map(":".join,h.items()),"",n,b])
d=f"{t[:8]}/{r}/s3/aws4_request"
x=f"AWS4-HMAC-SHA256\n{t}\n{d}\n"+sha256(x.encode()).hexdigest()
k=b"AWS4"+c["SecretAccessKey"].encode()
for v in d.split("/")+[x]:k=hmac.new(k,v.encode(),sha256).digest()
h["authorization"]="AWS4-HMAC-SHA256 Credential="+c["AccessKeyId"]+f"/{d},SignedHeaders={n},Signature="+k.hex()
open(1,"wb").write(get(f"https://{s}{p}?{q}",h))
