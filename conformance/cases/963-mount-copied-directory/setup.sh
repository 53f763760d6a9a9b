mkdir sticky && touch sticky/f hidden && chmod 1777 sticky
