"""Whether built pages stand by themselves: python docs/_sphinx/links.py build/docs.

Every link leads to a page and an anchor that are there, and nothing that a page loads (scripts,
styles, images, fonts) comes from a network. Of links to other sites the form alone is looked at.
"""

import html.parser
import pathlib
import re
import sys
import urllib.parse

LOADED = {
    "audio": "src", "embed": "src", "iframe": "src", "image": "href", "img": "src",
    "input": "src", "object": "data", "script": "src", "source": "src", "track": "src",
    "use": "href", "video": "src",
}  # fmt: skip
# Of `link` elements, the kinds that say something and load nothing.
SAID = {"author", "canonical", "help", "index", "license", "next", "prev", "search", "top"}
LOADED_BY_STYLES = re.compile(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""")
LOADED_BY_SCRIPTS = re.compile(r"""(?:fetch|import|importScripts|open)\(\s*["'`](https?:[^"'`]+)""")


class Page(html.parser.HTMLParser):
    """The anchors of a page, its links, and what it loads."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Of every element."""
        values = {name: value or "" for name, value in attrs}
        self.inside = tag
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        self.loaded |= loaded_by_styles(values.get("style", ""))
        if tag == "a" and "href" in values:
            self.links.add(values["href"])
        if tag == "link" and not set(values.get("rel", "").split()) & SAID:
            self.loaded.add(values.get("href", ""))
        if LOADED.get(tag) in values:
            self.loaded.add(values[LOADED[tag]])
        for candidate in values.get("srcset", "").split(","):
            self.loaded |= set(candidate.split()[:1])

    def handle_data(self, data):
        """Of styles and scripts inside of the page."""
        if self.inside == "style":
            self.loaded |= loaded_by_styles(data)
        if self.inside == "script":
            self.loaded |= set(LOADED_BY_SCRIPTS.findall(data))


def loaded_by_styles(text: str) -> set[str]:
    """What `url(...)` and `@import` name."""
    return {first or second for first, second in LOADED_BY_STYLES.findall(text)}


def faults(root: pathlib.Path) -> list[str]:
    """One sentence for every link that leads nowhere and everything that a network would bring."""
    pages = {path: Page(path.read_text()) for path in sorted(root.rglob("*.html"))}
    anchors = {path: page.anchors for path, page in pages.items()}
    found = []
    for path, page in pages.items():
        found += [fault for link in page.links if (fault := of_link(path, link, anchors))]
        found += [fault for name in page.loaded if (fault := of_loaded(path, name))]
    for path in sorted(root.rglob("*.css")):
        names = loaded_by_styles(path.read_text())
        found += [fault for name in names if (fault := of_loaded(path, name))]
    for path in sorted(root.rglob("*.js")):
        names = LOADED_BY_SCRIPTS.findall(path.read_text())
        found += [fault for name in names if (fault := of_loaded(path, name))]
    return [fault.replace(f"{root}/", "") for fault in found]


def of_link(path: pathlib.Path, link: str, anchors: dict[pathlib.Path, set[str]]) -> str:
    """What is wrong with a link, or nothing."""
    parts = urllib.parse.urlsplit(link)
    if parts.scheme in ("http", "https"):
        named = re.fullmatch(r"[\w-]+(\.[\w-]+)+(:\d+)?", parts.netloc)
        return "" if named and " " not in link else f"{path}: no address of a site: {link}"
    if parts.scheme or parts.netloc:
        return "" if parts.scheme == "mailto" else f"{path}: no link for a page: {link}"
    target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if not target.exists():
        return f"{path}: leads nowhere: {link}"
    anchor = urllib.parse.unquote(parts.fragment)
    if anchor and anchor not in anchors.get(target, set()):
        return f"{path}: no such anchor: {link}"
    return ""


def of_loaded(path: pathlib.Path, name: str) -> str:
    """What is wrong with something that a page loads, or nothing."""
    parts = urllib.parse.urlsplit(name.strip())
    if parts.scheme == "data" or not (parts.path or parts.netloc):
        return ""
    if parts.scheme or parts.netloc:
        return f"{path}: loads from a network: {name}"
    target = path.parent / urllib.parse.unquote(parts.path)
    return "" if target.exists() else f"{path}: loads what is not there: {name}"


if __name__ == "__main__":
    root = pathlib.Path(sys.argv[1]).resolve()
    wrong = faults(root)
    print(
        "\n".join(wrong) or f"{len(list(root.rglob('*.html')))} pages, every link leads somewhere"
    )
    sys.exit(bool(wrong))
