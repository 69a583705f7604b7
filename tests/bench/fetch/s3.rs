//! S3 at the speed of memory: the protocol and its signatures are those of `s3s`, the objects are bytes.
//!
//! Not `s3s-fs`, which the machine tests use: it reads in steps of 4 KiB and computes an object's MD5 for every request.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::dto::{
    ETag, ETagCondition, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, ListObjectsV2Input,
    ListObjectsV2Output, Object, StreamingBlob, Timestamp,
};
use s3s::service::S3ServiceBuilder;
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use crate::peers::{ACCESS_KEY, BUCKET, SECRET_KEY};

/// Serves the directory's files as the bucket's objects, until it is killed.
pub fn run(dir: &Path, port: u16) -> Result<()> {
    let mut service = S3ServiceBuilder::new(Objects::load(dir)?);
    service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    let service = service.build();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let service = service.clone();
            _ = tokio::spawn(async move {
                // The client reports a connection that breaks off.
                _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

struct Objects(BTreeMap<String, Stored>);

struct Stored {
    bytes: Bytes,
    etag: ETag,
    modified: Timestamp,
}

impl Objects {
    fn load(dir: &Path) -> Result<Objects> {
        let mut objects = BTreeMap::new();
        for set in fs::read_dir(dir)? {
            for file in fs::read_dir(set?.path())? {
                let path = file?.path();
                let key = path.strip_prefix(dir)?.to_str().context("a name")?.to_owned();
                let bytes = Bytes::from(fs::read(&path)?);
                // As for a multipart upload, it is no digest of the object.
                let digest: String = Sha256::digest(&key).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
                let etag = ETag::Strong(format!("{digest}-1"));
                _ = objects.insert(key, Stored { bytes, etag, modified: SystemTime::now().into() });
            }
        }
        Ok(Objects(objects))
    }

    fn find(&self, bucket: &str, key: &str, if_match: Option<&ETagCondition>) -> S3Result<&Stored> {
        if bucket != BUCKET {
            return Err(s3_error!(NoSuchBucket));
        }
        let object = self.0.get(key).ok_or_else(|| s3_error!(NoSuchKey))?;
        match if_match.and_then(ETagCondition::as_etag) {
            Some(etag) if !etag.strong_cmp(&object.etag) => Err(s3_error!(PreconditionFailed)),
            _ => Ok(object),
        }
    }
}

#[async_trait::async_trait]
impl S3 for Objects {
    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let object = self.find(&input.bucket, &input.key, input.if_match.as_ref())?;
        let length = object.bytes.len() as u64;
        let (range, content_range) = match input.range {
            None => (0..length, None),
            Some(range) => {
                let range = range.check(length)?;
                let content_range = format!("bytes {}-{}/{length}", range.start, range.end - 1);
                (range, Some(content_range))
            }
        };
        Ok(S3Response::new(GetObjectOutput {
            accept_ranges: Some("bytes".into()),
            content_length: Some((range.end - range.start) as i64),
            content_range,
            content_type: Some("application/octet-stream".parse().expect("a type")),
            e_tag: Some(object.etag.clone()),
            last_modified: Some(object.modified.clone()),
            body: Some(StreamingBlob::from(Body::from(object.bytes.slice(range.start as usize..range.end as usize)))),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        let object = self.find(&input.bucket, &input.key, input.if_match.as_ref())?;
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".into()),
            content_length: Some(object.bytes.len() as i64),
            content_type: Some("application/octet-stream".parse().expect("a type")),
            e_tag: Some(object.etag.clone()),
            last_modified: Some(object.modified.clone()),
            ..HeadObjectOutput::default()
        }))
    }

    /// A thousand at a time, as S3 does; there are no common prefixes to find below a set of objects.
    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let prefix = input.prefix.clone().unwrap_or_default();
        let after = input.continuation_token.clone().or(input.start_after).unwrap_or_default();
        let limit = input.max_keys.and_then(|keys| usize::try_from(keys).ok()).unwrap_or(1000).min(1000);
        let mut found = self.0.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after);
        let contents: Vec<Object> = found
            .by_ref()
            .take(limit)
            .map(|(key, object)| Object {
                key: Some(key.clone()),
                size: Some(object.bytes.len() as i64),
                e_tag: Some(object.etag.clone()),
                last_modified: Some(object.modified.clone()),
                ..Object::default()
            })
            .collect();
        let more = found.next().is_some();
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            max_keys: Some(limit as i32),
            key_count: Some(contents.len() as i32),
            continuation_token: input.continuation_token,
            is_truncated: Some(more),
            next_continuation_token: contents.last().and_then(|last| last.key.clone()).filter(|_| more),
            contents: Some(contents),
            ..ListObjectsV2Output::default()
        }))
    }
}
