//! The `#SBATCH` lines of a script, as words.

/// The options of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    /// The line, from 1.
    pub(super) line: usize,
    /// Its words, as a shell would have them; nothing where a quote is not closed.
    pub(super) words: Option<Vec<String>>,
}

/// The lines that count, which are those before the first command, and the numbers of those behind it.
pub(super) fn read(text: &str) -> (Vec<Directive>, Vec<usize>) {
    let (mut found, mut late, mut begun) = (Vec::new(), Vec::new(), false);
    for (at, line) in text.lines().enumerate() {
        match line.strip_prefix("#SBATCH") {
            Some(rest) if rest.starts_with(char::is_whitespace) => {
                if begun {
                    late.push(at + 1);
                } else {
                    found.push(Directive { line: at + 1, words: words(rest) });
                }
            }
            _ => begun |= !line.trim().is_empty() && !line.starts_with('#'),
        }
    }
    (found, late)
}

/// Splits a line: quotes keep words together, and what follows a `#` between words is a comment.
fn words(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut begun) = (Vec::new(), String::new(), false);
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (Some(_), letter) => word.push(letter),
            (None, '"' | '\'') => (quote, begun) = (Some(letter), true),
            (None, '\\') => {
                word.extend(letters.next());
                begun = true;
            }
            (None, '#') if !begun => break,
            (None, letter) if letter.is_whitespace() => {
                if std::mem::take(&mut begun) {
                    words.push(std::mem::take(&mut word));
                }
            }
            (None, letter) => {
                word.push(letter);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_before_the_first_command_count() {
        let text = "#!/bin/bash\n#SBATCH -n 2 # two\n# why\n\n#SBATCH --job-name=\"a b\"\n#SBATCHx\necho\n#SBATCH -c 9\n";
        let (found, late) = read(text);
        let words: Vec<Vec<String>> = found.iter().map(|one| one.words.clone().unwrap()).collect();
        assert_eq!(words, [vec!["-n", "2"], vec!["--job-name=a b"]]);
        assert_eq!(found.iter().map(|one| one.line).collect::<Vec<_>>(), [2, 5]);
        assert_eq!(late, [8]);
        assert_eq!(read("#SBATCH -J \"a\n").0[0].words, None);
        assert_eq!(words_of("-J a\\ b --x=''"), ["-J", "a b", "--x="]);
    }

    fn words_of(line: &str) -> Vec<String> {
        words(line).unwrap()
    }
}
