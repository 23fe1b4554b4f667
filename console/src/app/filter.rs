//! The filter of a list: words, all of which a row must hold.
//!
//! `!word` must not stand in it; `field:value` looks at one field only; `field>n` and `field<n`
//! compare a number; `a|b` is one or the other.

/// A filter, taken apart once for many rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    words: Vec<Word>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    wanted: bool,
    field: Option<String>,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    /// One of these stands in it.
    Holds(Vec<String>),
    /// It is more than this.
    More(i64),
    /// It is less than this.
    Less(i64),
    /// A level of the event log, or a louder one.
    Least(usize),
}

/// The levels of the event log, the loudest last.
const LEVELS: [&str; 4] = ["info", "note", "warn", "fail"];

impl Filter {
    /// Takes a filter apart.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let words = text.split_whitespace().filter_map(|word| {
            let word = word.to_lowercase();
            let (wanted, word) = match word.strip_prefix('!') {
                Some(word) => (false, word.to_owned()),
                None => (true, word),
            };
            (!word.is_empty()).then(|| Word::parse(wanted, &word))
        });
        Self { words: words.collect() }
    }

    /// Whether it lets everything through.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Whether a row fits, of which `field` gives a field by name, and all of them in a row for
    /// `""`. A field that is not known makes the word one that is looked for everywhere.
    pub fn holds(&self, field: impl Fn(&str) -> Option<String>) -> bool {
        self.words.iter().all(|word| word.fits(&field) == word.wanted)
    }
}

impl Word {
    fn parse(wanted: bool, word: &str) -> Self {
        for (sign, test) in [('>', Test::More as fn(i64) -> Test), ('<', Test::Less)] {
            if let Some((field, number)) = word.split_once(sign)
                && let Ok(number) = number.parse()
            {
                return Self { wanted, field: Some(field.to_owned()), test: test(number) };
            }
        }
        if let Some(level) = word.strip_prefix("level:").and_then(|word| word.strip_suffix('+'))
            && let Some(least) = LEVELS.iter().position(|known| *known == level)
        {
            return Self { wanted, field: Some("level".into()), test: Test::Least(least) };
        }
        let values = |text: &str| Test::Holds(text.split('|').map(str::to_owned).collect());
        match word.split_once(':') {
            Some((field, value)) => {
                Self { wanted, field: Some(field.to_owned()), test: values(value) }
            }
            None => Self { wanted, field: None, test: values(word) },
        }
    }

    fn fits(&self, field: &impl Fn(&str) -> Option<String>) -> bool {
        let named = self.field.as_deref().and_then(field);
        let text = match (&self.field, named) {
            (_, Some(text)) => text.to_lowercase(),
            (None, None) => field("").unwrap_or_default().to_lowercase(),
            (Some(name), None) => {
                // No such field here: the word stands for itself.
                let Test::Holds(values) = &self.test else { return false };
                let all = field("").unwrap_or_default().to_lowercase();
                return all.contains(&format!("{name}:{}", values.join("|")));
            }
        };
        match &self.test {
            Test::Holds(values) => values.iter().any(|value| text.contains(value)),
            Test::More(number) => text.parse::<i64>().is_ok_and(|value| value > *number),
            Test::Less(number) => text.parse::<i64>().is_ok_and(|value| value < *number),
            Test::Least(least) => {
                LEVELS.iter().position(|known| *known == text).is_some_and(|level| level >= *least)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Filter;

    #[test]
    fn filters_people_type() {
        let fields = [
            ("job", "j12"),
            ("name", "train"),
            ("user", "ada"),
            ("state", "run"),
            ("node", "gpu-1 runner"),
            ("sm", "40"),
            ("level", "WARN"),
        ];
        let all = fields.map(|(_, value)| value).join(" ");
        let field = |name: &str| {
            let found = fields.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned()).or((name.is_empty()).then(|| all.clone()))
        };
        for (filter, expected) in [
            ("", true),
            ("train", true),
            ("TRAIN run", true),
            ("train wait", false),
            ("!wait", true),
            ("!run", false),
            ("!", true),
            ("user:ada", true),
            ("user:train", false),
            ("state:wait|run", true),
            ("state:wait|fail", false),
            ("!state:wait|fail", true),
            ("node:GPU", true),
            ("nothing:ada", false),
            ("ada|bob j12", true),
            ("sm>39", true),
            ("sm>40", false),
            ("sm<41", true),
            ("!sm<41", false),
            ("name>1", false),
            ("level:note+", true),
            ("level:fail+", false),
            ("level:loud+", false),
        ] {
            assert_eq!(Filter::parse(filter).holds(field), expected, "{filter}");
        }
    }
}
