-- Keys are looked up by their digest, so that a key of any length fits into the index and a held key may have a long tail.
DROP INDEX dead_letters_holding;
CREATE INDEX dead_letters_holding ON dead_letters (consumer_group, topic, md5(key), id)
WHERE holds AND replayed_at IS NULL AND discarded_at IS NULL;
