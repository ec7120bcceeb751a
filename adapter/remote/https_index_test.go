package remote

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// folderPages are how servers show a folder with config.json, "a b+%.txt", sub/ and x:y.json.
var folderPages = map[string]string{
	"python": `<!DOCTYPE HTML>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Directory listing for /m/ <a href="no"></title>
</head>
<body>
<h1>Directory listing for /m/</h1>
<hr>
<ul>
<li><a href="a%20b%2B%25.txt">a b+%.txt</a></li>
<li><a href="config.json">config.json</a></li>
<li><a href="sub/">sub/</a></li>
<li><a href="x%3Ay.json">x:y.json</a></li>
</ul>
</body>
</html>`,
	"nginx": "<html>\r\n<head><title>Index of /m/</title></head>\r\n" +
		"<body>\r\n<h1>Index of /m/</h1><hr><pre>" +
		"<a href=\"../\">../</a>\r\n<a href=\"sub/\">sub/</a>    30-Nov-2026 20:00       -\r\n" +
		"<a href=\"a%20b+%25.txt\">a b+%.txt</a>  30-Nov-2026 20:00       7\r\n" +
		"<a href=\"config.json\">config.json</a>  30-Nov-2026 20:00     123\r\n" +
		"<a href=\"./x:y.json\">x:y.json</a>\r\n</pre><hr></body>\r\n</html>",
	"apache": `<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 3.2 Final//EN">
<html><head><title>Index of /m</title></head><body><h1>Index of /m</h1><table>
<tr><th valign="top"><img src="/icons/blank.gif" alt="[ICO]"></th><th><a href="?C=N;O=D">Name</a></th>
<th><a href="?C=M;O=A">Last modified</a></th><th><a href="?C=S;O=A">Size</a></th></tr>
<tr><td><img src="/icons/back.gif"></td><td><a href="/">Parent Directory</a></td></tr>
<tr><td><img src="/icons/text.gif"></td><td><A HREF='a%20b+%25.txt'>a b+%.txt</A></td></tr>
<tr><td></td><td><a class=x href=config.json>config.json</a></td></tr>
<tr><td></td><td><a href="sub/">sub/</a></td></tr>
<tr><td></td><td><a href="x%3ay.json">x:y.json</a></td></tr>
</table></body></html>`,
	"go": "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n" +
		"<a href=\"a%20b+%25.txt\">a b+%.txt</a>\n<a href=\"config.json\">config.json</a>\n" +
		"<a href=\"sub/\">sub/</a>\n<a href=\"./x:y.json\">x:y.json</a>\n</pre>\n",
	"caddy": `<!DOCTYPE html><html><head><style>a:before{content:"<a href='evil'>"}</style>
<script>document.write("<a href='evil.js'>")</script><!-- <a href="evil.txt"> --></head><body>
<a href="..">Up</a><a href="./a%20b+%25.txt"><span>a</span></a><a
	href = "./config.json"
	title="a > b"><svg><use href="#x"/></svg></a><a href="./sub/">sub</a><a href="./x:y.json">x</a></body>`,
}

func TestPagesOfFoldersAreRead(t *testing.T) {
	want := []string{"a b+%.txt", "config.json", "sub/", "x:y.json"}
	for server, page := range folderPages {
		var got []string
		for _, e := range indexEntries(page) {
			if e.dir {
				e.name += "/"
			}
			got = append(got, e.name)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: the page has %q", server, got)
		}
	}
}

func TestLinksThatLeadOutOfTheFolderAreLeftOut(t *testing.T) {
	for _, href := range []string{
		"", ".", "./", "..", "../", "../x", "./../x", "/", "/x", "/m/x", "//host/x", "a/b", "a/../b",
		"a//", "a/b/", "https://host/x", "HTTP://host/x", "javascript:alert(1)", "mailto:a@b",
		"data:text/html,x", "?C=N", "x?y=1", "#top", "x#y", ".hidden", ".hidden/", "%2e%2e", "%2e%2e/",
		"..%2fx", "%2fetc%2fpasswd", "a%2fb", `a\b`, "a%5cb", "a%00b", "a%0ab", "a%1b[31mb", "%ff",
		"%zz", "&#47;x", "&#x2f;x", "&period;&period;/", strings.Repeat("a", 256),
		"a%E2%80%AEb%0d", "\x00", "javascript&colon;alert(1)", "./javascript:x/../y",
	} {
		if got := indexEntries(`<a href="` + href + `">x</a>`); len(got) != 0 {
			t.Errorf("%q gives %v", href, got)
		}
	}
}

func TestANameIsListedOnce(t *testing.T) {
	page := `<a href="x"></a><a href="./x">x</a><a href="%78">x</a><a href="x/">x</a>`
	if got := indexEntries(page); len(got) != 1 {
		t.Errorf("the page has %v", got)
	}
}

// mutate changes bytes of a page, and cuts it.
func mutate(rng *rand.Rand, page string) string {
	p := []byte(page)
	for range 1 + rng.IntN(8) {
		const marks = `<>"'=/! -&#%.:?ahref` + "\x00\xff\n"
		p[rng.IntN(len(p))] = marks[rng.IntN(len(marks))]
	}
	return string(p[:rng.IntN(len(p)+1)])
}

func TestDamagedPagesGiveNoOddNames(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 19))
	for range 3000 {
		for _, page := range folderPages {
			checkEntries(t, mutate(rng, page))
		}
	}
}

func FuzzIndex(f *testing.F) {
	for _, page := range folderPages {
		f.Add(page)
	}
	f.Fuzz(func(t *testing.T, page string) { checkEntries(t, page) })
}

func checkEntries(t *testing.T, page string) {
	t.Helper()
	for _, e := range indexEntries(page) {
		if !isName(e.name) || e.name[0] == '.' || strings.ContainsAny(e.name, "/\\\n\x00") {
			t.Errorf("%q gives %v", page, e)
		}
	}
}

// A page that was cut short is not taken for a shorter listing.
func TestAPageThatWasCutShortIsNoticed(t *testing.T) {
	for server, page := range folderPages {
		if isCutShort(page) {
			t.Errorf("%s: the whole page", server)
		}
		all := len(indexEntries(page))
		for i := range page {
			n := len(indexEntries(page[:i]))
			if server != "caddy" && 0 < n && n < all && !isCutShort(page[:i]) {
				t.Errorf("%s: %d of %d entries in %q", server, n, all, page[:i])
			}
		}
	}
}
