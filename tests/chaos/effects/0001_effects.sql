-- No key on purpose: an effect that happens twice is there twice.
CREATE TABLE effects (
    seq        bigint GENERATED ALWAYS AS IDENTITY,
    id         uuid   NOT NULL,
    aggregate  text   NOT NULL,
    version    bigint NOT NULL,
    written_at bigint NOT NULL,
    applied_at bigint NOT NULL
);
