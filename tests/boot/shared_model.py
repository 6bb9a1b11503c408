# SPDX-License-Identifier: GPL-2.0
"""What a file may contain that the host and guests use by turns, and what each of them may see of it.

`File` knows the host's file as it is after each call, and what a call may change: bytes that are written, and, where whole pages are
written back, bytes that the guest has of these pages. `View` knows what a guest may still have of the file: for each page the contents
that it had since the guest last had to look.
"""

PAGE = 4096


class Wrong(AssertionError):
    """Something that must not be."""


def pages_of(at, length):
    """The pages that bytes lie in."""
    return range(at // PAGE, -(-(at + length) // PAGE))


def put(image, page, at, data):
    """A page's image with the bytes of `data`, which begins at `at` of the file, that lie in the page; a gap is zeroes."""
    first = max(at - page * PAGE, 0)
    part = data[max(page * PAGE - at, 0) : (page + 1) * PAGE - at]
    return image[:first].ljust(first, b"\0") + part + image[first + len(part) :]


def differs(got, images, padded=False, tail=False):
    """Where the bytes of a page are in none of its images; None for nowhere. `padded`: zeroes follow an image that is shorter, as the file
    was made longer; `tail`: so it is in a mapping."""
    if any(got == image[: len(got)] for image in images):
        return None
    for at, byte in enumerate(got):
        if not any(image[at] == byte if at < len(image) else (padded or tail) and byte == 0 for image in images):
            return at
    return None


class View:
    """What a guest may have of the file beside what is true. `reopens`: who opens it sees what is true then. `direct`: everybody does at
    any time, but for the size where it is `sized`. `whole_pages`: what is written goes out by pages."""

    def __init__(self, reopens=True, direct=False, sized=False, whole_pages=False):
        self.reopens, self.direct, self.sized, self.whole_pages = reopens, direct, sized or not direct, whole_pages
        self.pages, self.sizes = {}, set()
        # Pages that were stored to and not synced, and what of them was stored.
        self.pending = {}
        # Times that msync(2) leaves here, and with them the size.
        self.late = False
        # What stays open there has lost its name.
        self.nameless = False

    def looks(self):
        """Whether it takes over what is true when it opens the file: where pages go out as a whole, not as long as some, or times, are dirty."""
        return self.reopens and not (self.whole_pages and (self.pending or self.late))

    def look(self, size=True):
        """It has opened the file, and uses the size or does not."""
        if self.looks():
            self.pages.clear()
            if size:
                self.sizes.clear()

    def remember(self, page, image):
        """Somebody else changes a page."""
        images = self.pages.setdefault(page, [])
        if not self.direct and image not in images:
            images.append(image)

    def images(self, file, page):
        """What it may have of a page: in any case what it stored there."""
        if page in self.pending:
            return self.pending[page]
        return [file.image(page), *self.pages.get(page, ())]


class File:
    """The host's file."""

    def __init__(self, path, views):
        self.path, self.views = path, views
        self.content = path.read_bytes()
        self.calls = []

    def image(self, page):
        """A page as it is."""
        return self.content[page * PAGE : (page + 1) * PAGE]

    def others(self, view):
        """All views but one."""
        return [other for other in self.views if other is not view]

    def settle(self, may, sizes, what):
        """Compares the file with what it may be: `may` has the images of pages that a call wrote, all others are as before or as guests
        had them pending. That is what it is from here on."""
        now = self.path.read_bytes()
        if len(now) not in sizes:
            raise Wrong(f"{what}: the host's file has {len(now)} bytes and not {sorted(sizes)}")
        for page in range(-(-len(now) // PAGE)):
            got = now[page * PAGE : (page + 1) * PAGE]
            images = may.get(page) or [self.image(page)]
            for view in self.views:
                images = images + view.pending.get(page, [])
            at = differs(got, images, padded=True)
            if at is not None:
                kinds = " or ".join(image[at : at + 8].hex() or "nothing" for image in images[:4])
                kept = "written" if page in may else "not to be touched"
                raise Wrong(f"{what}: page {page}, which was {kept}, has at {at} {got[at : at + 8].hex()} and not {kinds}")
        self.content = now

    def changed(self, view, pages, size=None):
        """Guests other than `view` may not know yet that pages change, and the size."""
        for other in self.others(view):
            for page in pages:
                other.remember(page, self.image(page))
            if size is not None and size != len(self.content) and other.sized:
                other.sizes.add(len(self.content))

    def written(self, view, at, data, what, whole_pages=False):
        """`view`, or the host for None, wrote bytes."""
        before, end, pages = self.content, at + len(data), list(pages_of(at, len(data)))
        sizes = {max(len(before), end)}
        self.changed(view, range(-(-len(before) // PAGE)) if end > len(before) else pages, sizes and max(sizes))
        may = {}
        for page in pages:
            known = [self.image(page), *(view.images(self, page)[1:] if page not in view.pending else view.pending[page])] if view else [self.image(page)]
            if view and whole_pages:
                # Behind the end that it knows it has zeroes.
                known += [self.image(page)[: max(size - page * PAGE, 0)] for size in view.sizes if size < (page + 1) * PAGE]
            patched = [put(image, page, at, data) for image in known]
            may[page] = patched if whole_pages else patched[:1]
            if view and page in view.pending:
                view.pending[page] = patched
            if view and len(patched) > 1:
                view.pages[page] = patched[1:]
            if whole_pages and view:
                # As much of the page as the guest takes for a part of the file.
                sizes |= {max(len(before), min(size, (page + 1) * PAGE)) for size in view.sizes}
        if end > len(before):
            gap = len(before) // PAGE
            if gap not in may and len(before) % PAGE:
                may[gap] = [self.image(gap).ljust(PAGE, b"\0")]
            for page in range(gap + 1, pages[0] if pages else 0):
                may.setdefault(page, [bytes(PAGE)])
        if view:
            view.late = view.late or what == "store msync"
            view.sizes = {max(size, end) for size in view.sizes} - sizes
        self.settle(may, sizes, what)

    def stored(self, view, at, data, what):
        """`view` stored through a mapping, and has not synced that yet: the host may have it, or not."""
        pages = list(pages_of(at, len(data)))
        self.changed(view, pages)
        view.late = True
        for page in pages:
            before = view.images(self, page)
            patched = [put(image, page, at, data) for image in before]
            view.pending[page] = patched
            view.pages[page] = patched
        self.settle({}, {len(self.content)}, what)

    def synced(self, view, what):
        """What `view` stored is on the host now."""
        may = {page: images for page, images in view.pending.items()}
        for page in may:
            self.changed(view, [page])
        view.pending = {}
        view.late = view.late and what == "msync"
        old, self.views = self.views, [other for other in self.views if other is not view]
        try:
            self.settle(may, {len(self.content)}, what)
        finally:
            self.views = old

    def resized(self, view, size, what):
        """`view`, or the host, set the size."""
        old = len(self.content)
        self.changed(view, range(min(size, old) // PAGE, -(-max(size, old) // PAGE)), size)
        may = {}
        if size > old:
            may = {page: [self.image(page).ljust(PAGE, b"\0")[: size - page * PAGE]] for page in range(old // PAGE, -(-size // PAGE))}
        if view:
            view.sizes = set()
            for page in list(view.pages):
                cut = max(size - page * PAGE, 0)
                view.pages[page] = [image[:cut] for image in view.pages[page] if image[:cut]]
        self.settle(may, {size}, what)

    def replaced(self, view, data, what):
        """Another file has the name."""
        self.changed(view, range(-(-max(len(self.content), len(data)) // PAGE)), len(data))
        for other in self.views:
            other.nameless = True
        if view:
            view.pages, view.sizes = {}, set()
        self.content = data
        self.settle({}, {len(data)}, what)

    def seen(self, view, at, length, got, what, mapped=False):
        """`view` read bytes."""
        sizes = {len(self.content), *view.sizes}
        ends = {max(min(at + length, size), at) for size in sizes}
        if at + len(got) not in ends:
            raise Wrong(f"{what}: {len(got)} bytes from {at}, where the file has {sorted(end - at for end in ends)}")
        for page in pages_of(at, len(got)):
            first = max(page * PAGE - at, 0)
            skip = max(at - page * PAGE, 0)
            part = got[first : (page + 1) * PAGE - at]
            images = [image[skip:] for image in view.images(self, page)]
            wrong = differs(part, images, tail=mapped)
            if wrong is not None:
                kinds = " or ".join(image[wrong : wrong + 8].hex() or "nothing" for image in images[:4])
                raise Wrong(f"{what}: at {at + first + wrong}, page {page}, {part[wrong : wrong + 8].hex()} and not {kinds}; size {len(self.content)}")

    def seen_size(self, view, size, what):
        """`view` learned the size."""
        if size not in {len(self.content), *view.sizes}:
            raise Wrong(f"{what}: size {size} and not {sorted({len(self.content), *view.sizes})}")
