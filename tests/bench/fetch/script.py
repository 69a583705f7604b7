"""The script one would write: `script.py LIST DIR THREADS` downloads the list's URLs (http, https, s3) and hashes them."""

import hashlib
import os
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

CHUNK = 1 << 20
urls = open(sys.argv[1]).read().split()
directory, threads = sys.argv[2], int(sys.argv[3])
if any(url.startswith("s3:") for url in urls):
    import boto3
    from botocore.config import Config

    s3 = boto3.client("s3", config=Config(max_pool_connections=threads))


def body(url):
    parts = urlsplit(url)
    if parts.scheme == "s3":
        return s3.get_object(Bucket=parts.netloc, Key=parts.path[1:])["Body"]
    return urllib.request.urlopen(url, timeout=60)


def download(url):
    path = os.path.join(directory, os.path.basename(url))
    digest = hashlib.sha256()
    with body(url) as source, open(path + ".part", "wb") as file:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            file.write(chunk)
    os.rename(path + ".part", path)
    return digest.hexdigest(), path


with ThreadPoolExecutor(threads) as pool:
    for digest, path in pool.map(download, urls):
        print(digest, path)
