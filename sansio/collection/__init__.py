"""Getting space back: `collector` takes what nobody needs, `presence` is what everybody else has to know of it."""
