package remote

import (
	"html"
	"net/url"
	"strings"
)

// mostIndex is how many bytes the page of a folder may have.
const mostIndex = 8 << 20

// entry is a link of a folder's page.
type entry struct {
	name string
	dir  bool
}

// indexEntries returns the files and folders that a page links to: those directly in its folder.
// Other links are left out, whatever they are: parents, other servers, queries that sort the page,
// names that are paths or are hidden.
func indexEntries(page string) []entry {
	var list []entry
	seen := map[string]bool{}
	for _, href := range links(page) {
		e, ok := toEntry(href)
		if ok && !seen[e.name] {
			seen[e.name] = true
			list = append(list, e)
		}
	}
	return list
}

// toEntry reads a link relative to its folder.
func toEntry(href string) (entry, bool) {
	href, here := strings.CutPrefix(href, "./")
	if first, _, _ := strings.Cut(href, "/"); strings.Contains(first, ":") && !here {
		return entry{}, false // it begins with a scheme
	}
	name, err := url.PathUnescape(href)
	if err != nil || strings.ContainsAny(href, "?#") {
		return entry{}, false
	}
	name, dir := strings.CutSuffix(name, "/")
	return entry{name, dir}, isName(name) && !strings.HasPrefix(name, ".")
}

// listElements are the elements that hold the links of a folder's page. None of them may be left
// open.
var listElements = []string{"pre", "table", "ul", "ol"}

// isCutShort reports whether a page ends within an element that holds links. Some files would be
// missing from such a page.
func isCutShort(page string) bool {
	page = strings.ToLower(page)
	for _, name := range listElements {
		begin := max(strings.LastIndex(page, "<"+name+">"), strings.LastIndex(page, "<"+name+" "))
		if begin >= 0 && !strings.Contains(page[begin:], "</"+name) {
			return true
		}
	}
	return false
}

// hiddenElements have text that is not a part of the page.
var hiddenElements = []string{"script", "style", "template", "noscript", "textarea", "title"}

// links returns the targets of the links of a page. It knows no more of HTML than elements,
// attributes and comments. A page that is malformed gives fewer links.
func links(page string) (list []string) {
	for {
		at := strings.IndexByte(page, '<')
		if at < 0 {
			return list
		}
		page = page[at+1:]
		if rest, ok := strings.CutPrefix(page, "!--"); ok {
			_, page, _ = strings.Cut(rest, "-->")
			continue
		}
		var e element
		e, page = readElement(page)
		if e.name == "a" && e.href != "" {
			list = append(list, strings.TrimSpace(html.UnescapeString(e.href)))
		}
		for _, hidden := range hiddenElements {
			if e.name == hidden {
				page = after(page, "</"+hidden)
			}
		}
	}
}

// after returns what follows a lower-case text, in whatever case it is.
func after(page, text string) string {
	for i := 0; i+len(text) <= len(page); i++ {
		if strings.EqualFold(page[i:i+len(text)], text) {
			return page[i+len(text):]
		}
	}
	return ""
}

// element is the beginning of an element.
type element struct{ name, href string }

const blanks = " \t\r\n\f"

// readElement reads the beginning of an element, after its "<", and returns what follows it.
func readElement(page string) (e element, rest string) {
	at := strings.IndexAny(page, blanks+"/>")
	if at < 0 {
		return e, ""
	}
	e.name, rest = strings.ToLower(page[:at]), page[at:]
	for {
		rest = strings.TrimLeft(rest, blanks+"/")
		if rest == "" || rest[0] == '>' {
			return e, strings.TrimPrefix(rest, ">")
		}
		var name, value string
		name, value, rest = readAttribute(rest)
		if e.href == "" && strings.EqualFold(name, "href") {
			e.href = value
		}
	}
}

// readAttribute takes an attribute off a text.
func readAttribute(text string) (name, value, rest string) {
	at := strings.IndexAny(text[1:], blanks+"/>=") + 1
	if at == 0 {
		return text, "", ""
	}
	name, rest = text[:at], strings.TrimLeft(text[at:], blanks)
	rest, ok := strings.CutPrefix(rest, "=")
	if !ok {
		return name, "", rest
	}
	rest = strings.TrimLeft(rest, blanks)
	if rest == "" {
		return name, "", ""
	}
	if quote := rest[:1]; quote == `"` || quote == "'" {
		value, rest, _ = strings.Cut(rest[1:], quote)
		return name, value, rest
	}
	if at = strings.IndexAny(rest, blanks+">"); at < 0 {
		return name, rest, ""
	}
	return name, rest[:at], rest[at:]
}
