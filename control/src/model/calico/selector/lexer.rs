//! Tokens. Words like `in` or `contains` are operators only right after a label; anywhere else they are labels.

use super::parser::{ParseError, Reason};

/// Longest label name, bytes.
const MAX_LABEL: usize = 512;

/// One token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A label's name.
    Label(&'a str),
    /// What stands between the quotes.
    Text(&'a str),
    /// `has(label)`.
    Has(&'a str),
    /// `all()`.
    All,
    /// `global()`.
    Global,
    /// `==`.
    Equal,
    /// `!=`.
    NotEqual,
    /// `contains`.
    Contains,
    /// `starts with`.
    StartsWith,
    /// `ends with`.
    EndsWith,
    /// `in`.
    In,
    /// `not in`.
    NotIn,
    /// `!`.
    Not,
    /// `&&`.
    And,
    /// `||`.
    Or,
    /// `(`.
    Open,
    /// `)`.
    Close,
    /// `{`.
    OpenSet,
    /// `}`.
    CloseSet,
    /// `,`.
    Comma,
    /// Nothing more.
    End,
}

/// Cuts a text into tokens, one at a time.
#[derive(Debug)]
pub struct Lexer<'a> {
    text: &'a str,
    at: usize,
    after_label: bool,
}

impl<'a> Lexer<'a> {
    pub const fn new(text: &'a str) -> Self {
        Self { text, at: 0, after_label: false }
    }

    /// The next token and the byte where it begins.
    pub fn next(&mut self) -> Result<(usize, Token<'a>), ParseError> {
        self.at += self.rest().len() - without_blanks(self.rest()).len();
        let start = self.at;
        let (token, length) = match self.symbol()? {
            Some(found) => found,
            None if self.after_label => operator(self.rest()).ok_or(self.error(Reason::ExpectedOperator))?,
            None => word(self.rest()).ok_or(self.error(Reason::UnexpectedCharacter))?,
        };
        self.at += length;
        self.after_label = matches!(token, Token::Label(_));
        Ok((start, token))
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    const fn error(&self, reason: Reason) -> ParseError {
        ParseError { position: self.at, reason }
    }

    /// Punctuation and strings, which mean the same everywhere; with the token's length.
    fn symbol(&self) -> Result<Option<(Token<'a>, usize)>, ParseError> {
        let rest = self.rest();
        let doubled = |token| {
            if rest.as_bytes().get(1) == Some(&rest.as_bytes()[0]) {
                Ok((token, 2))
            } else {
                Err(self.error(Reason::SingleSymbol))
            }
        };
        Ok(Some(match rest.bytes().next() {
            None => (Token::End, 0),
            Some(b'(') => (Token::Open, 1),
            Some(b')') => (Token::Close, 1),
            Some(b'{') => (Token::OpenSet, 1),
            Some(b'}') => (Token::CloseSet, 1),
            Some(b',') => (Token::Comma, 1),
            Some(b'!') if rest.starts_with("!=") => (Token::NotEqual, 2),
            Some(b'!') => (Token::Not, 1),
            Some(b'=') => doubled(Token::Equal)?,
            Some(b'&') => doubled(Token::And)?,
            Some(b'|') => doubled(Token::Or)?,
            Some(quote @ (b'"' | b'\'')) => {
                let inner = &rest[1..];
                let end = inner.find(char::from(quote)).ok_or(self.error(Reason::UnterminatedString))?;
                (Token::Text(&inner[..end]), end + 2)
            }
            Some(_) => return Ok(None),
        }))
    }
}

fn without_blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

/// A word that can follow a label, with its length.
fn operator<'a>(text: &'a str) -> Option<(Token<'a>, usize)> {
    let two = |first, second| without_blanks(text.strip_prefix(first)?).strip_prefix(second);
    // `in` ends at the end of a word: `inx` is no operator.
    let ended = |rest: &&str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let found: (Token<'a>, &str) = if let Some(rest) = text.strip_prefix("contains") {
        (Token::Contains, rest)
    } else if let Some(rest) = two("starts", "with") {
        (Token::StartsWith, rest)
    } else if let Some(rest) = two("ends", "with") {
        (Token::EndsWith, rest)
    } else if let Some(rest) = two("not", "in").filter(ended) {
        (Token::NotIn, rest)
    } else {
        (Token::In, text.strip_prefix("in").filter(ended)?)
    };
    Some((found.0, text.len() - found.1.len()))
}

/// `has(…)`, `all()`, `global()` or a label, with its length.
fn word(text: &str) -> Option<(Token<'_>, usize)> {
    let call = |name| text.strip_prefix(name).and_then(|rest| rest.strip_prefix('(')).map(without_blanks);
    let closed = |rest| without_blanks(rest).strip_prefix(')');
    let length = |rest: &str| text.len() - rest.len();
    if let Some(inner) = call("has")
        && let Some(label) = label(inner)
        && let Some(rest) = closed(&inner[label.len()..])
    {
        return Some((Token::Has(label), length(rest)));
    }
    for (name, token) in [("all", Token::All), ("global", Token::Global)] {
        if let Some(rest) = call(name).and_then(closed) {
            return Some((token, length(rest)));
        }
    }
    label(text).map(|label| (Token::Label(label), label.len()))
}

/// The label name that a text begins with.
fn label(text: &str) -> Option<&str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b'-');
    let length = text.bytes().take(MAX_LABEL).take_while(|b| allowed(*b)).count();
    (length > 0).then(|| &text[..length])
}
