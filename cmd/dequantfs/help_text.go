package main

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/russross/blackfriday/v2"
)

// textWidth is the width of topics in a terminal.
const textWidth = 80

// topicText prints a topic for a terminal.
func topicText(t topic) string {
	var w textWriter
	w.paragraph("dequantfs "+t.name+": "+t.short, "", "")
	doc := blackfriday.New(blackfriday.WithExtensions(markdown)).Parse([]byte(t.body))
	for n := doc.FirstChild; n != nil; n = n.Next {
		w.block(n, "")
	}
	return strings.ReplaceAll(strings.TrimRight(w.String(), "\n"), unbroken, " ") + "\n"
}

// unbroken is a space in code at which lines do not break, so commands can be copied.
const unbroken = "\x00"

// markdown is the dialect of the topics.
const markdown = blackfriday.Tables | blackfriday.NoIntraEmphasis | blackfriday.SpaceHeadings

// textWriter turns a Markdown tree into wrapped text.
type textWriter struct{ strings.Builder }

// block prints one block, each of its lines after indent, and an empty line.
func (w *textWriter) block(n *blackfriday.Node, indent string) {
	switch n.Type {
	case blackfriday.Heading:
		w.WriteString(strings.ToUpper(inline(n)) + "\n\n")
	case blackfriday.CodeBlock:
		for line := range strings.Lines(string(n.Literal)) {
			w.WriteString(indent + "    " + line)
		}
		w.WriteString("\n")
	case blackfriday.List:
		w.list(n, indent)
	case blackfriday.Table:
		w.table(tableCells(n))
	default:
		w.paragraph(inline(n), indent, indent)
	}
}

// list prints each item with a bullet or a number to the left of all its blocks.
func (w *textWriter) list(n *blackfriday.Node, indent string) {
	number := 0
	for item := n.FirstChild; item != nil; item = item.Next {
		number++
		mark := "* "
		if n.ListFlags&blackfriday.ListTypeOrdered != 0 {
			mark = strconv.Itoa(number) + ". "
		}
		first, deeper := indent+mark, indent+strings.Repeat(" ", len(mark))
		for b := item.FirstChild; b != nil; b = b.Next {
			if b.Type == blackfriday.Paragraph {
				w.wrapped(inline(b), first, deeper)
			} else {
				w.block(b, deeper)
			}
			first = deeper
		}
	}
	w.WriteString("\n")
}

// table aligns columns if all rows fit the width. Otherwise each row becomes a small paragraph: the
// first cell, then the others below it.
func (w *textWriter) table(rows [][]string) {
	widths := make([]int, len(rows[0]))
	total := 0
	for column := range widths {
		for _, row := range rows {
			widths[column] = max(widths[column], utf8.RuneCountInString(row[column]))
		}
		total += widths[column] + 2
	}
	if total-2 <= textWidth {
		w.columns(rows, widths)
		return
	}
	for _, row := range rows[1:] {
		w.record(rows[0], row)
	}
}

func (w *textWriter) columns(rows [][]string, widths []int) {
	for _, row := range rows {
		var line strings.Builder
		for column, cell := range row {
			pad := widths[column] - utf8.RuneCountInString(cell) + 2
			line.WriteString(cell + strings.Repeat(" ", pad))
		}
		w.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	w.WriteString("\n")
}

// record prints a row of a wide table. In a table of two columns, the second one is printed without
// its name.
func (w *textWriter) record(head, row []string) {
	w.wrapped(row[0], "  ", "  ")
	for column := 1; column < len(row); column++ {
		name := head[column] + ": "
		if name == ": " || len(row) == 2 {
			name = ""
		}
		if row[column] != "" {
			w.wrapped(name+row[column], "      ", "      ")
		}
	}
	w.WriteString("\n")
}

func (w *textWriter) paragraph(text, first, rest string) {
	w.wrapped(text, first, rest)
	w.WriteString("\n")
}

// wrapped prints words in lines of textWidth.
func (w *textWriter) wrapped(text, first, rest string) {
	line, empty := first, true
	for _, word := range strings.Fields(text) {
		if !empty && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > textWidth {
			w.WriteString(line + "\n")
			line, empty = rest, true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	w.WriteString(line + "\n")
}

// tableCells returns the text of each cell. The first row is the head.
func tableCells(n *blackfriday.Node) (rows [][]string) {
	n.Walk(func(n *blackfriday.Node, entering bool) blackfriday.WalkStatus {
		switch {
		case !entering:
		case n.Type == blackfriday.TableRow:
			rows = append(rows, nil)
		case n.Type == blackfriday.TableCell:
			last := len(rows) - 1
			rows[last] = append(rows[last], inline(n))
			return blackfriday.SkipChildren
		}
		return blackfriday.GoToNext
	})
	return rows
}

// inline returns the text of a paragraph or cell. Names of flags and files keep their backquotes.
func inline(n *blackfriday.Node) string {
	var b strings.Builder
	n.Walk(func(n *blackfriday.Node, entering bool) blackfriday.WalkStatus {
		switch n.Type {
		case blackfriday.Text:
			b.Write(n.Literal)
		case blackfriday.Code:
			b.WriteString("`" + strings.ReplaceAll(string(n.Literal), " ", unbroken) + "`")
		}
		return blackfriday.GoToNext
	})
	return b.String()
}
