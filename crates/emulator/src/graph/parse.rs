//! The part of KQL that the emulator understands: `TABLE | where … | extend … | project … | order by … | take N |
//! count | distinct …` over columns, paths into them, literals, comparisons and a few functions. What else KQL has is
//! refused by its name. It leaves out what a query does (`run.rs`).

use serde_json::{Value, json};

use super::{COLUMNS, Refusal, Table};

/// A query.
#[derive(Debug, PartialEq)]
pub(crate) struct Query {
    pub(crate) table: Table,
    pub(crate) stages: Vec<Stage>,
}

impl Query {
    /// Whether rows have this column in the end.
    pub(super) fn shows(&self, column: &str) -> bool {
        let last = self.stages.iter().rev().find_map(|stage| match stage {
            Stage::Project(columns) | Stage::Distinct(columns) => Some(columns),
            _ => None,
        });
        last.is_none_or(|columns| columns.iter().any(|(name, _)| name == column))
            && !self.stages.contains(&Stage::Count)
    }
}

/// One step.
#[derive(Debug, PartialEq)]
pub(crate) enum Stage {
    Where(Expression),
    Extend(Vec<(String, Expression)>),
    Project(Vec<(String, Expression)>),
    Distinct(Vec<(String, Expression)>),
    OrderBy(Vec<(Expression, Direction)>),
    Take(usize),
    Count,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Ascending,
    Descending,
}

/// Something with a value for each row.
#[derive(Debug, PartialEq)]
pub(crate) enum Expression {
    Literal(Value),
    /// A column and the way into it.
    Path(String, Vec<Step>),
    Call(Function, Vec<Expression>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Compare(Comparison, Box<Expression>, Box<Expression>),
    /// Whether one of a list equals it.
    In {
        found: bool,
        case: Case,
        left: Box<Expression>,
        list: Vec<Expression>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    Sensitive,
    Insensitive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    ToString,
    ToLower,
    ToUpper,
    ArrayLength,
    IsEmpty,
    IsNotEmpty,
    IsNull,
    IsNotNull,
    Not,
}

/// How two values are compared; of texts, whether case counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal { equal: bool, case: Case },
    Less { or_equal: bool },
    Greater { or_equal: bool },
    Contains { found: bool, case: Case },
    StartsWith { found: bool, case: Case },
    EndsWith { found: bool, case: Case },
}

/// Reads a query.
pub(crate) fn query(text: &str) -> Result<Query, Refusal> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0 };
    let mut stages = Vec::new();
    let table = match parser.peek() {
        Token::Word(word) if word.eq_ignore_ascii_case("resources") => Some(Table::Resources),
        Token::Word(word) if word.eq_ignore_ascii_case("computeresources") => Some(Table::ComputeResources),
        // The default table need not be named.
        Token::Word(word) if STAGES.contains(&word.as_str()) => None,
        Token::Word(word) => return Err(Refusal::unsupported(word)),
        _ => return Err(parser.expected("a table")),
    };
    if table.is_some() {
        parser.at += 1;
    } else {
        stages.push(parser.stage()?);
    }
    while *parser.peek() != Token::End {
        parser.punctuation("|")?;
        stages.push(parser.stage()?);
    }
    let query = Query { table: table.unwrap_or(Table::Resources), stages };
    check_columns(&query)?;
    Ok(query)
}

const STAGES: [&str; 10] =
    ["where", "extend", "project", "distinct", "order", "sort", "take", "limit", "count", "summarize"];

/// Parentheses in each other: more is no query that somebody has written.
const DEEPEST: usize = 64;

/// Every name is a column by then.
fn check_columns(query: &Query) -> Result<(), Refusal> {
    let mut columns: Vec<String> = COLUMNS.iter().map(|name| (*name).to_owned()).collect();
    for stage in &query.stages {
        let mut names = Vec::new();
        match stage {
            Stage::Where(expression) => paths(expression, &mut names),
            Stage::Extend(list) | Stage::Project(list) | Stage::Distinct(list) => {
                list.iter().for_each(|(_, expression)| paths(expression, &mut names));
            }
            Stage::OrderBy(list) => list.iter().for_each(|(expression, _)| paths(expression, &mut names)),
            Stage::Take(_) | Stage::Count => {}
        }
        if let Some(unknown) = names.into_iter().find(|name| !columns.contains(name)) {
            return Err(Refusal::unresolved(&unknown));
        }
        let named =
            |list: &[(String, Expression)]| list.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        match stage {
            Stage::Extend(list) => columns.extend(named(list)),
            Stage::Project(list) | Stage::Distinct(list) => columns = named(list),
            Stage::Count => columns = vec!["Count".into()],
            Stage::Where(_) | Stage::OrderBy(_) | Stage::Take(_) => {}
        }
    }
    Ok(())
}

fn paths(expression: &Expression, names: &mut Vec<String>) {
    match expression {
        Expression::Literal(_) => {}
        Expression::Path(column, _) => names.push(column.clone()),
        Expression::Call(_, arguments) => arguments.iter().for_each(|one| paths(one, names)),
        Expression::And(left, right) | Expression::Or(left, right) | Expression::Compare(_, left, right) => {
            paths(left, names);
            paths(right, names);
        }
        Expression::In { left, list, .. } => {
            paths(left, names);
            list.iter().for_each(|one| paths(one, names));
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Number(u64),
    Punctuation(&'static str),
    End,
}

struct Placed {
    token: Token,
    line: usize,
    column: usize,
}

struct Parser {
    tokens: Vec<Placed>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |placed| &placed.token)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn expected(&self, what: &str) -> Refusal {
        let (line, column) = self.tokens.get(self.at).map_or((1, 0), |placed| (placed.line, placed.column));
        let token = match self.peek() {
            Token::Word(word) => word.clone(),
            Token::Text(text) => format!("'{text}'"),
            Token::Number(number) => number.to_string(),
            Token::Punctuation(sign) => (*sign).to_owned(),
            Token::End => "<EOF>".into(),
        };
        Refusal::parser(line, column, &token, what)
    }

    fn takes(&mut self, sign: &str) -> bool {
        let there = matches!(self.peek(), Token::Punctuation(here) if *here == sign);
        self.at += usize::from(there);
        there
    }

    fn punctuation(&mut self, sign: &str) -> Result<(), Refusal> {
        if self.takes(sign) { Ok(()) } else { Err(self.expected(sign)) }
    }

    fn takes_word(&mut self, wanted: &str) -> bool {
        let there = matches!(self.peek(), Token::Word(word) if word == wanted);
        self.at += usize::from(there);
        there
    }

    fn word(&mut self) -> Result<String, Refusal> {
        match self.peek().clone() {
            Token::Word(word) => {
                self.at += 1;
                Ok(word)
            }
            _ => Err(self.expected("a name")),
        }
    }

    fn stage(&mut self) -> Result<Stage, Refusal> {
        let name = self.word()?;
        if self.takes("-") {
            return Err(Refusal::unsupported(&format!("{name}-{}", self.word()?)));
        }
        Ok(match name.as_str() {
            "where" => Stage::Where(self.expression()?),
            "extend" => Stage::Extend(self.columns()?),
            "project" => Stage::Project(self.columns()?),
            "distinct" => Stage::Distinct(self.columns()?),
            "order" | "sort" => {
                if !self.takes_word("by") {
                    return Err(self.expected("by"));
                }
                let mut list = Vec::new();
                loop {
                    let expression = self.expression()?;
                    // KQL sorts downwards unless it is told.
                    let direction =
                        if self.takes_word("asc") { Direction::Ascending } else { Direction::Descending };
                    let _ = direction == Direction::Descending && self.takes_word("desc");
                    list.push((expression, direction));
                    if !self.takes(",") {
                        break;
                    }
                }
                Stage::OrderBy(list)
            }
            "take" | "limit" => match self.next() {
                Token::Number(number) => Stage::Take(usize::try_from(number).unwrap_or(usize::MAX)),
                _ => {
                    self.at -= 1;
                    return Err(self.expected("a number"));
                }
            },
            "count" => Stage::Count,
            other => return Err(Refusal::unsupported(other)),
        })
    }

    /// `a, b = …, c.d`
    fn columns(&mut self) -> Result<Vec<(String, Expression)>, Refusal> {
        let mut columns = Vec::new();
        loop {
            let named = match (self.peek(), self.tokens.get(self.at + 1).map(|placed| &placed.token)) {
                (Token::Word(name), Some(Token::Punctuation("="))) => Some(name.clone()),
                _ => None,
            };
            if named.is_some() {
                self.at += 2;
            }
            let expression = self.expression()?;
            columns.push((named.unwrap_or_else(|| default_name(&expression)), expression));
            if !self.takes(",") {
                return Ok(columns);
            }
        }
    }

    fn expression(&mut self) -> Result<Expression, Refusal> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Refusal::unsupported("("));
        }
        let mut left = self.conjunction()?;
        while self.takes_word("or") {
            left = Expression::Or(left.into(), self.conjunction()?.into());
        }
        self.depth -= 1;
        Ok(left)
    }

    fn conjunction(&mut self) -> Result<Expression, Refusal> {
        let mut left = self.comparison()?;
        while self.takes_word("and") {
            left = Expression::And(left.into(), self.comparison()?.into());
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Result<Expression, Refusal> {
        use Case::{Insensitive, Sensitive};
        let left = self.operand()?;
        let sign = match self.peek() {
            Token::Punctuation(sign) => (*sign).to_owned(),
            Token::Word(word) => word.clone(),
            _ => return Ok(left),
        };
        let comparison = match sign.as_str() {
            "==" => Comparison::Equal { equal: true, case: Sensitive },
            "!=" => Comparison::Equal { equal: false, case: Sensitive },
            "=~" => Comparison::Equal { equal: true, case: Insensitive },
            "!~" => Comparison::Equal { equal: false, case: Insensitive },
            "<" => Comparison::Less { or_equal: false },
            "<=" => Comparison::Less { or_equal: true },
            ">" => Comparison::Greater { or_equal: false },
            ">=" => Comparison::Greater { or_equal: true },
            "contains" => Comparison::Contains { found: true, case: Insensitive },
            "contains_cs" => Comparison::Contains { found: true, case: Sensitive },
            "!contains" => Comparison::Contains { found: false, case: Insensitive },
            "startswith" => Comparison::StartsWith { found: true, case: Insensitive },
            "startswith_cs" => Comparison::StartsWith { found: true, case: Sensitive },
            "!startswith" => Comparison::StartsWith { found: false, case: Insensitive },
            "endswith" => Comparison::EndsWith { found: true, case: Insensitive },
            "endswith_cs" => Comparison::EndsWith { found: true, case: Sensitive },
            "!endswith" => Comparison::EndsWith { found: false, case: Insensitive },
            "in" | "in~" | "!in" | "!in~" => {
                self.at += 1;
                let case = if sign.ends_with('~') { Insensitive } else { Sensitive };
                self.punctuation("(")?;
                let mut list = vec![self.expression()?];
                while self.takes(",") {
                    list.push(self.expression()?);
                }
                self.punctuation(")")?;
                return Ok(Expression::In { found: !sign.starts_with('!'), case, left: left.into(), list });
            }
            "has" | "matches" | "between" => return Err(Refusal::unsupported(&sign)),
            _ => return Ok(left),
        };
        self.at += 1;
        Ok(Expression::Compare(comparison, left.into(), self.operand()?.into()))
    }

    fn operand(&mut self) -> Result<Expression, Refusal> {
        match self.next() {
            Token::Text(text) => Ok(Expression::Literal(text.into())),
            Token::Number(number) => Ok(Expression::Literal(json!(number))),
            Token::Punctuation("(") => {
                let inner = self.expression()?;
                self.punctuation(")")?;
                Ok(inner)
            }
            Token::Word(word) if word == "true" || word == "false" => {
                Ok(Expression::Literal((word == "true").into()))
            }
            Token::Word(word) if self.takes("(") => {
                let function = function(&word).ok_or_else(|| Refusal::unsupported(&word))?;
                let argument = self.expression()?;
                self.punctuation(")")?;
                Ok(Expression::Call(function, vec![argument]))
            }
            Token::Word(column) => {
                let mut steps = Vec::new();
                loop {
                    if self.takes(".") {
                        if !self.takes("[") {
                            steps.push(Step::Key(self.word()?));
                            continue;
                        }
                    } else if !self.takes("[") {
                        return Ok(Expression::Path(column, steps));
                    }
                    steps.push(match self.next() {
                        Token::Text(key) => Step::Key(key),
                        Token::Number(index) => Step::Index(usize::try_from(index).unwrap_or(usize::MAX)),
                        _ => {
                            self.at -= 1;
                            return Err(self.expected("a key or a number"));
                        }
                    });
                    self.punctuation("]")?;
                }
            }
            _ => {
                self.at -= 1;
                Err(self.expected("a value"))
            }
        }
    }
}

fn function(name: &str) -> Option<Function> {
    Some(match name {
        "tostring" => Function::ToString,
        "tolower" => Function::ToLower,
        "toupper" => Function::ToUpper,
        "array_length" => Function::ArrayLength,
        "isempty" => Function::IsEmpty,
        "isnotempty" => Function::IsNotEmpty,
        "isnull" => Function::IsNull,
        "isnotnull" => Function::IsNotNull,
        "not" => Function::Not,
        _ => return None,
    })
}

/// `properties.a.b` becomes `properties_a_b`, around which a function changes nothing.
fn default_name(expression: &Expression) -> String {
    match expression {
        Expression::Path(column, steps) => steps.iter().fold(column.clone(), |name, step| match step {
            Step::Key(key) => format!("{name}_{key}"),
            Step::Index(index) => format!("{name}_{index}"),
        }),
        Expression::Call(_, arguments) => arguments.first().map(default_name).unwrap_or_default(),
        _ => "Column1".into(),
    }
}

/// The longest first.
const SIGNS: [&str; 19] =
    ["==", "=~", "!=", "!~", "<=", ">=", "<", ">", "=", "|", "(", ")", "[", "]", ",", ".", "-", ";", "~"];

fn tokens(text: &str) -> Result<Vec<Placed>, Refusal> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if let Some(comment) = rest.strip_prefix("//") {
            rest = comment.find('\n').and_then(|end| comment.get(end..)).unwrap_or_default();
            continue;
        }
        let before = text.get(..text.len() - rest.len()).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
        let failed = |token: &str, expected: &str| Refusal::parser(line, column, token, expected);
        let Some(first) = rest.chars().next() else {
            tokens.push(Placed { token: Token::End, line, column });
            return Ok(tokens);
        };
        let length = |good: fn(char) -> bool| rest.find(|c| !good(c)).unwrap_or(rest.len());
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (token, taken) = if first == '\'' || first == '"' {
            let (value, taken) = quoted(rest, first).ok_or_else(|| failed("<EOF>", "'"))?;
            (Token::Text(value), taken)
        } else if let Some(verbatim) = rest.strip_prefix('@') {
            let quote = verbatim.chars().next().filter(|c| matches!(c, '\'' | '"'));
            let inner = quote.and_then(|quote| verbatim.get(1..)?.split_once(quote));
            let (value, _) = inner.ok_or_else(|| failed("@", "'"))?;
            (Token::Text(value.to_owned()), value.len() + 3)
        } else if first.is_ascii_digit() {
            let digits = rest.get(..length(|c| c.is_ascii_digit())).unwrap_or_default();
            (Token::Number(digits.parse().map_err(|_| failed(digits, "a number"))?), digits.len())
        } else if first.is_ascii_alphabetic() || first == '_' || first == '!' {
            let sign = usize::from(first == '!');
            let behind = rest.get(sign..).unwrap_or_default();
            let name = behind.get(..behind.find(|c| !is_name(c)).unwrap_or(behind.len())).unwrap_or_default();
            match SIGNS.iter().find(|known| sign == 1 && rest.starts_with(**known)) {
                Some(known) => (Token::Punctuation(known), known.len()),
                None if name.is_empty() => return Err(failed("!", "an operator")),
                None => {
                    let tilde = usize::from(name == "in" && behind.get(2..3) == Some("~"));
                    let end = sign + name.len() + tilde;
                    (Token::Word(rest.get(..end).unwrap_or_default().to_owned()), end)
                }
            }
        } else {
            let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
            let sign = sign.ok_or_else(|| failed(&first.to_string(), "an expression"))?;
            (Token::Punctuation(sign), sign.len())
        };
        tokens.push(Placed { token, line, column });
        rest = rest.get(taken..).unwrap_or_default();
    }
}

/// A literal in quotes, and how long it is with them (learn.microsoft.com, "The string data type").
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            end if end == quote => return Some((value, at + 1)),
            // A line ends in no literal of this kind.
            '\n' | '\r' => return None,
            '\\' => value.push(match characters.next()?.1 {
                same @ ('\\' | '\'' | '"') => same,
                't' => '\t',
                'n' => '\n',
                'r' => '\r',
                'u' => {
                    let digits: String = characters.by_ref().take(4).map(|(_, digit)| digit).collect();
                    char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?
                }
                _ => return None,
            }),
            other => value.push(other),
        }
    }
    None
}
