-- SQLite finds what one claim has taken by an index; here the statement that claims answers it. Nothing is to be done.
SELECT 1;
