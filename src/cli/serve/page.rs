//! The page: one file, whose script and style are allowed by their hashes and nothing else is.

use sha2::{Digest, Sha256};

/// The page, which the ASGI application serves, too.
pub(super) const PAGE: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fast_litellm/inspector.html"));

/// What a browser may load and do for the page (`Content-Security-Policy`).
pub(super) fn policy() -> String {
    let hash = |tag| {
        let inner = inner(PAGE, tag).unwrap_or_default();
        format!("'sha256-{}'", base64(&Sha256::digest(inner)))
    };
    format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style")
    )
}

/// What stands in the first element of that name.
fn inner<'a>(page: &'a str, tag: &str) -> Option<&'a str> {
    let (_, rest) = page.split_once(&format!("<{tag}>"))?;
    Some(rest.split_once(&format!("</{tag}>"))?.0)
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let bits = (0..3).fold(0, |bits, n| bits << 8 | usize::from(*chunk.get(n).unwrap_or(&0)));
        let digit = move |n: usize| char::from(ALPHABET[bits >> (18 - 6 * n) & 63]);
        let digits = chunk.len() + 1;
        (0..4).map(move |n| if n < digits { digit(n) } else { '=' })
    };
    bytes.chunks(3).flat_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xbf]), "+/+/");
    }

    #[test]
    fn the_page_has_one_script_one_style_and_nothing_inline_elsewhere() {
        for tag in ["script", "style"] {
            assert_eq!(PAGE.matches(&format!("<{tag}")).count(), 1, "{tag}");
            assert!(inner(PAGE, tag).is_some_and(|inner| inner.len() > 1000), "{tag}");
        }
        for inline in [" style=", " onclick=", " onload=", "javascript:"] {
            assert!(!PAGE.contains(inline), "{inline}");
        }
    }

    #[test]
    fn the_page_asks_nobody_else() {
        for elsewhere in ["http:", "https:", "\"//", "'//", "url("] {
            // The name of a vocabulary, which nobody fetches.
            let page = PAGE.replace("http://www.w3.org/2000/svg", "");
            assert!(!page.contains(elsewhere), "{elsewhere}");
        }
    }

    /// Everything that comes from a region is put into the page as text.
    #[test]
    fn the_page_never_makes_markup_of_text() {
        for way in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("]
        {
            assert!(!PAGE.contains(way), "{way}");
        }
    }
}
