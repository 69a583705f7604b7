//! Listings that are not whole.

use super::bench;
use crate::fetch::tests::{
    Bench,
    server::{Reply, Server},
    told,
};
use crate::{aws::s3::listing::Prefix, fetch::source::Source};

fn page(rest: &str) -> Reply {
    Reply::ok(format!("<ListBucketResult><Contents><Key>a</Key><Size>1</Size></Contents>{rest}</ListBucketResult>"))
}

fn list(bench: &Bench) -> anyhow::Result<usize> {
    let prefix = "s3://artifacts/app/".parse().unwrap();
    bench.system.aws.list(&bench.system.host, &prefix).map(|objects| objects.len())
}

#[test]
fn a_listing_has_all_its_pages() {
    let next =
        |token: &str| format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>");
    let server = Server::start(move |number, _| match number {
        0 => page(&next("one")),
        1 => page(&next("two")),
        _ => page("<IsTruncated>false</IsTruncated>"),
    });
    assert_eq!(list(&bench(&server)).unwrap(), 3);
    let tokens: Vec<_> = server.requests().iter().map(|asked| asked.target().contains("continuation-token=")).collect();
    assert_eq!(tokens, [false, true, true]);

    // Such a listing would never end.
    for tokens in [["one", "one"], ["one", "two"]] {
        let server = Server::start(move |number, _| page(&next(tokens[number % 2])));
        let (code, told) = told(list(&bench(&server)));
        assert!(code == 1 && told.contains("the listing has the same page twice"), "{told}");
    }
}

#[test]
fn a_listing_that_is_not_whole_is_none() {
    for (answer, words) in [
        (page("<IsTruncated>true</IsTruncated>"), "the listing breaks off: it has no token for the next page"),
        (Reply::ok("<html><body>welcome</body></html>"), "the answer is no listing, but has the element html"),
        (Reply::ok("welcome"), "S3's listing can't be read"),
    ] {
        let server = Server::replies(vec![answer]);
        let (code, told) = told(list(&bench(&server)));
        assert!(code == 75 && told.contains(words), "{told}");
    }
}

#[test]
fn the_region_in_the_body_of_a_refusal_is_followed() {
    for code in ["AuthorizationHeaderMalformed", "IllegalLocationConstraintException"] {
        let server = Server::start(move |number, _| match number {
            0 => Reply::new(
                400,
                &[],
                format!("<Error><Code>{code}</Code><Message>no</Message><Region>eu-west-1</Region></Error>"),
            ),
            _ => page(""),
        });
        assert_eq!(list(&bench(&server)).unwrap(), 1, "{code}");
        assert_eq!(server.requests().iter().map(super::region).collect::<Vec<_>>(), ["us-east-1", "eu-west-1"]);
    }
    // Not every region in a body is the bucket's.
    let body = "<Error><Code>AccessDenied</Code><Region>eu-west-1</Region></Error>";
    let server = Server::start(move |_, _| Reply::new(403, &[], body));
    assert!(list(&bench(&server)).is_err());
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn an_access_point_is_named_by_its_alias() {
    let arn = "arn:aws:s3:eu-west-1:111122223333:accesspoint";
    for point in [format!("{arn}/app"), format!("{arn}:app")] {
        let source = format!("s3://{point}/key").parse::<Source>().unwrap_err();
        let prefix = format!("s3://{point}/prefix/").parse::<Prefix>().unwrap_err();
        for refused in [source, prefix] {
            let words = "an access point is named by its alias, not by its ARN: s3://NAME-RANDOM-s3alias/";
            assert_eq!(refused.to_string(), words);
        }
    }
    assert!("s3://app-hrzrlukc5m36ft7okagglf3gmwluquse1b-s3alias/key".parse::<Source>().is_ok());
}
