//! Tokens to tree, by recursive descent: `||` binds loosest, then `&&`, then `!`.

use std::fmt;

use super::ast::{Comparison, Node, Values};
use super::lexer::{Lexer, Token};

/// Most parentheses inside one another. People need a handful; what reads, writes and asks the tree recurses, and a
/// datastore must not be able to exhaust the stack.
pub const MAX_DEPTH: usize = 128;

/// Where and why a text is no selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Byte of the text, counted from 0.
    pub position: usize,
    /// What is wrong there.
    pub reason: Reason,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "selector makes no sense at byte {}: {}", self.position, self.reason)
    }
}

impl std::error::Error for ParseError {}

/// What is wrong with a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A character that begins no token; line breaks are such.
    #[error("unexpected character")]
    UnexpectedCharacter,
    /// `=`, `&` or `|` alone.
    #[error("'=', '&' and '|' come in pairs")]
    SingleSymbol,
    /// The closing quote is missing.
    #[error("the string has no end")]
    UnterminatedString,
    /// No operator after a label.
    #[error("expected an operator after the label")]
    ExpectedOperator,
    /// No string after an operator.
    #[error("expected a string in quotes")]
    ExpectedString,
    /// No set after `in` or `not in`.
    #[error("expected a set in braces")]
    ExpectedSet,
    /// A set that does not end.
    #[error("expected '}}' or ','")]
    ExpectedSetEnd,
    /// A group that does not end.
    #[error("expected ')'")]
    ExpectedClose,
    /// No expression where one has to be.
    #[error("expected a label, has(), all(), global() or '('")]
    ExpectedExpression,
    /// Something after the end.
    #[error("expected '&&', '||' or the end")]
    ExpectedEnd,
    /// More than [`MAX_DEPTH`] parentheses.
    #[error("more than {MAX_DEPTH} parentheses inside one another")]
    TooDeep,
}

/// Reads a whole selector.
pub fn parse(text: &str) -> Result<Node, ParseError> {
    let mut parser = Parser::new(text)?;
    if parser.token == Token::End {
        return Ok(Node::All);
    }
    let node = parser.or(0)?;
    match parser.token {
        Token::End => Ok(node),
        _ => Err(parser.error(Reason::ExpectedEnd)),
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// One token ahead.
    token: Token<'a>,
    /// Where it begins.
    position: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self, ParseError> {
        let mut lexer = Lexer::new(text);
        let (position, token) = lexer.next()?;
        Ok(Self { lexer, token, position })
    }

    const fn error(&self, reason: Reason) -> ParseError {
        ParseError { position: self.position, reason }
    }

    fn advance(&mut self) -> Result<(), ParseError> {
        (self.position, self.token) = self.lexer.next()?;
        Ok(())
    }

    fn or(&mut self, depth: usize) -> Result<Node, ParseError> {
        let mut parts = vec![self.and(depth)?];
        while self.token == Token::Or {
            self.advance()?;
            parts.push(self.and(depth)?);
        }
        Ok(joined(parts, Node::Or))
    }

    fn and(&mut self, depth: usize) -> Result<Node, ParseError> {
        let mut parts = vec![self.operation(depth)?];
        while self.token == Token::And {
            self.advance()?;
            parts.push(self.operation(depth)?);
        }
        Ok(joined(parts, Node::And))
    }

    fn operation(&mut self, depth: usize) -> Result<Node, ParseError> {
        let mut negated = false;
        while self.token == Token::Not {
            negated = !negated;
            self.advance()?;
        }
        let node = self.operand(depth)?;
        Ok(if negated { Node::Not(Box::new(node)) } else { node })
    }

    fn operand(&mut self, depth: usize) -> Result<Node, ParseError> {
        let node = match self.token {
            Token::Label(label) => {
                self.advance()?;
                return self.about(label);
            }
            Token::Open if depth == MAX_DEPTH => return Err(self.error(Reason::TooDeep)),
            Token::Open => {
                self.advance()?;
                let node = self.or(depth + 1)?;
                if self.token != Token::Close {
                    return Err(self.error(Reason::ExpectedClose));
                }
                node
            }
            Token::Has(label) => Node::Has(label.into()),
            Token::All => Node::All,
            Token::Global => Node::Global,
            _ => return Err(self.error(Reason::ExpectedExpression)),
        };
        self.advance()?;
        Ok(node)
    }

    /// What follows a label.
    fn about(&mut self, label: &str) -> Result<Node, ParseError> {
        let comparison = match self.token {
            Token::Equal => Comparison::Equal,
            Token::NotEqual => Comparison::NotEqual,
            Token::Contains => Comparison::Contains,
            Token::StartsWith => Comparison::StartsWith,
            Token::EndsWith => Comparison::EndsWith,
            Token::In => return Ok(Node::In(label.into(), self.set()?)),
            Token::NotIn => return Ok(Node::NotIn(label.into(), self.set()?)),
            _ => return Err(self.error(Reason::ExpectedOperator)),
        };
        self.advance()?;
        let Token::Text(value) = self.token else { return Err(self.error(Reason::ExpectedString)) };
        self.advance()?;
        Ok(Node::Compare(label.into(), comparison, value.into()))
    }

    /// From the operator to behind the closing brace. A comma may stand before the brace.
    fn set(&mut self) -> Result<Values, ParseError> {
        self.advance()?;
        if self.token != Token::OpenSet {
            return Err(self.error(Reason::ExpectedSet));
        }
        self.advance()?;
        let mut values = Vec::new();
        while let Token::Text(value) = self.token {
            values.push(value.into());
            self.advance()?;
            if self.token != Token::Comma {
                break;
            }
            self.advance()?;
        }
        if self.token != Token::CloseSet {
            return Err(self.error(Reason::ExpectedSetEnd));
        }
        self.advance()?;
        Ok(Values::new(values))
    }
}

fn joined(mut parts: Vec<Node>, join: fn(Box<[Node]>) -> Node) -> Node {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            join(parts.into_boxed_slice())
        }
        None => unreachable!("a list of operands begins with one"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> (usize, Reason) {
        let error = parse(text).unwrap_err();
        (error.position, error.reason)
    }

    #[test]
    fn errors_say_where_and_why() {
        assert_eq!(reason("a = 'x'"), (2, Reason::SingleSymbol));
        assert_eq!(reason("a == b"), (5, Reason::ExpectedString));
        assert_eq!(reason("a == 'b"), (5, Reason::UnterminatedString));
        assert_eq!(reason("a inx {'b'}"), (2, Reason::ExpectedOperator));
        assert_eq!(reason("a in 'b'"), (5, Reason::ExpectedSet));
        assert_eq!(reason("a in {'b' 'c'}"), (10, Reason::ExpectedSetEnd));
        assert_eq!(reason("(has(a)"), (7, Reason::ExpectedClose));
        assert_eq!(reason("()"), (1, Reason::ExpectedExpression));
        assert_eq!(reason("has(a) has(b)"), (7, Reason::ExpectedEnd));
        assert_eq!(reason("has(a)\n"), (6, Reason::UnexpectedCharacter));
        assert_eq!(reason("has(a) && é"), (10, Reason::UnexpectedCharacter));
        assert_eq!(
            parse("a !== 'x'").unwrap_err().to_string(),
            "selector makes no sense at byte 4: '=', '&' and '|' come in pairs"
        );
    }

    #[test]
    fn depth_is_bounded_and_breadth_is_not() {
        let nested = |depth: usize| format!("{}has(a){}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(parse(&nested(MAX_DEPTH)), Ok(Node::Has("a".into())));
        assert_eq!(reason(&nested(MAX_DEPTH + 1)), (MAX_DEPTH, Reason::TooDeep));
        assert!(
            parse(&format!("{}has(a)", "!".repeat(100_001))).is_ok_and(|node| matches!(node, Node::Not(_)))
        );
        assert!(parse(&"has(a) && ".repeat(10_000)).is_err());
    }

    #[test]
    fn a_label_ends_after_512_bytes() {
        let long = "x".repeat(512);
        assert!(parse(&format!("{long} == 'a'")).is_ok());
        assert!(parse(&format!("has({long})")).is_ok());
        assert_eq!(reason(&format!("{long}y == 'a'")), (512, Reason::ExpectedOperator));
        assert!(parse(&format!("has({long}y)")).is_err());
    }
}
