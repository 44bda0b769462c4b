"""Pages for people: what the index holds, how to install it, what each wheel is and how it came to be.

Values in, HTML out. `gather.Source` makes the values of a wheelhouse and of what `model.Told` tells of attempts; one module
a page makes its HTML by `html.h`, which escapes all text. Plain HTML, one style sheet and one script that pages do without.
"""

from builder.site.gather import Source
from builder.site.tree import tree

__all__ = ["Source", "tree"]
