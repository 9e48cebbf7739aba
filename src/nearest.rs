//! Which of the words that are known was meant by one that is not. Floor 0.

/// The known word that is most like this one, if any is like it.
#[must_use]
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (word.chars().count() / 4).clamp(1, 3);
    let like = known.into_iter().map(|known| (strsim::damerau_levenshtein(word, known), known));
    like.filter(|(distance, _)| *distance <= most).min().map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_word_that_is_near_is_taken_for_the_one_that_was_meant() {
        assert_eq!(nearest("drian", ["addr", "drain"]), Some("drain"));
        assert_eq!(nearest("hvs.CAESIJ", ["addr", "auth"]), None);
    }
}
