// Package readback reads JSON files that dequantfs itself has written: manifests and records of
// exports, records of mounts, and answers of their sockets.
//
// Such a file may have been damaged, edited or replaced since. So [Open] and [Decode] return a
// value or an error, within a bound of memory and without waiting:
//
//   - [Open] opens regular files only. A FIFO or a device is refused before it is read.
//   - [Decode] reads at most [Limits.Bytes]. A string has at most 64 KiB. A list or map has at most
//     4096 elements, unless its field has the tag `most:"N"`.
//   - A name must be spelled as in the field's tag. A field without omitempty or omitzero is
//     required. A repeated field, a null and text after the value are errors.
//
// [Limits.Loose] reads files of other versions of dequantfs. It bounds memory in the same way.
package readback

import (
	"cmp"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"reflect"
	"strconv"
)

// Limits bound the text that Decode reads.
type Limits struct {
	Bytes int64 // of the text; 0 means 1 MiB

	// Loose accepts files of other versions: unknown fields are skipped, fields may be missing, and
	// null leaves a field unchanged.
	Loose bool
}

const (
	defaultBytes = 1 << 20
	defaultMost  = 4096 // elements of a list or map
	maxDepth     = 64   // of a skipped value
)

// Open opens a regular file for reading and follows links. Other kinds of files give a
// [NotRegularError]. The kind is checked before opening, because opening a device can have effects.
// It is checked again afterwards, because the file may have been replaced.
func Open(name string) (*os.File, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &NotRegularError{name, info.Mode()}
	}
	f, err := os.OpenFile(name, os.O_RDONLY|Nonblock, 0)
	if err != nil {
		return nil, err
	}
	if info, err = f.Stat(); err == nil && !info.Mode().IsRegular() {
		err = &NotRegularError{name, info.Mode()}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// NotRegularError is the error for a file that is not a regular file.
type NotRegularError struct {
	Name string
	Mode iofs.FileMode
}

// Error names the file and its kind.
func (e *NotRegularError) Error() string {
	return fmt.Sprintf("%s is %s, not a regular file", e.Name, Kind(e.Mode))
}

// kinds are the names of the kinds of files.
var kinds = []struct {
	mode iofs.FileMode
	name string
}{
	{iofs.ModeDir, "a directory"},
	{iofs.ModeSymlink, "a link"},
	{iofs.ModeNamedPipe, "a FIFO"},
	{iofs.ModeSocket, "a socket"},
	{iofs.ModeDevice, "a device"},
}

// Kind names the kind of a file, such as "a directory".
func Kind(mode iofs.FileMode) string {
	for _, k := range kinds {
		if mode&k.mode != 0 {
			return k.name
		}
	}
	if mode.IsRegular() {
		return "a file"
	}
	return "something else"
}

// File opens a regular file and decodes it into v, a pointer. Errors name the file.
func File(name string, v any, l Limits) error {
	f, err := Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return DecodeFile(f, v, l)
}

// DecodeFile decodes an open file into v, a pointer. A file that is too large is refused unread.
func DecodeFile(f *os.File, v any, l Limits) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if most := cmp.Or(l.Bytes, defaultBytes); info.Size() > most {
		return fmt.Errorf("%s: %d bytes, more than the %d that it may have",
			f.Name(), info.Size(), most)
	}
	if err := Decode(f, v, l); err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	return nil
}

// Decode reads one JSON value into v, a pointer, and checks that nothing follows it. Errors name
// the field and the byte.
func Decode(r io.Reader, v any, l Limits) error {
	bytes := cmp.Or(l.Bytes, defaultBytes)
	d := &decoder{json: json.NewDecoder(&guard{r: r, left: bytes, limit: bytes}), loose: l.Loose}
	d.json.UseNumber()
	if err := d.value(reflect.ValueOf(v).Elem(), defaultMost); err != nil {
		return err
	}
	if _, err := d.json.Token(); err != io.EOF {
		return d.fail("something follows the end of the value")
	}
	return nil
}

// decoder reads tokens into values.
type decoder struct {
	json  *json.Decoder
	loose bool

	held    json.Token // a token read ahead, if holds
	heldErr error
	holds   bool
}

func (d *decoder) fail(format string, args ...any) error {
	return fmt.Errorf("byte %d: %w", d.json.InputOffset(), fmt.Errorf(format, args...))
}

// next reads a token. The end of the text is an error, because a value is incomplete.
func (d *decoder) next() (json.Token, error) {
	if d.holds {
		d.holds = false
		return d.held, d.heldErr
	}
	t, err := d.json.Token()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, d.fail("%w", err)
	}
	return t, nil
}

// null reads a null if one is next. Otherwise it holds the token for the next call.
func (d *decoder) null() bool {
	t, err := d.next()
	if err == nil && t == nil {
		return true
	}
	d.held, d.heldErr, d.holds = t, err, true
	return false
}

// want reads a token of one type.
func want[T any](d *decoder, name string) (T, error) {
	t, err := d.next()
	if err != nil {
		return *new(T), err
	}
	v, ok := t.(T)
	if !ok {
		return v, d.fail("expected %s, found %s", name, describe(t))
	}
	return v, nil
}

// describe shows a token in a message.
func describe(t json.Token) string {
	if t == nil {
		return "null"
	}
	return fmt.Sprintf("%.40q", fmt.Sprint(t))
}

// delim reads a brace or bracket.
func (d *decoder) delim(want json.Delim) error {
	t, err := d.next()
	if err == nil && t != want {
		return d.fail("expected %q, found %s", rune(want), describe(t))
	}
	return err
}

// value reads a value of v's type. A list or map may have up to most elements.
func (d *decoder) value(v reflect.Value, most int) error {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return d.text(u)
	}
	switch v.Kind() {
	case reflect.Pointer: // of a part that may be missing
		v.Set(reflect.New(v.Type().Elem()))
		return d.value(v.Elem(), most)
	case reflect.Struct:
		return d.object(v)
	case reflect.Slice:
		return d.list(v, most)
	case reflect.Map:
		return d.dictionary(v, most)
	}
	return d.scalar(v)
}

// text reads a string for a type that parses it.
func (d *decoder) text(u encoding.TextUnmarshaler) error {
	s, err := want[string](d, "a string")
	if err != nil {
		return err
	}
	if err := u.UnmarshalText([]byte(s)); err != nil {
		return d.fail("%w", err)
	}
	return nil
}

// scalar reads a string, a number or a boolean.
func (d *decoder) scalar(v reflect.Value) error {
	switch {
	case v.Kind() == reflect.String:
		s, err := want[string](d, "a string")
		v.SetString(s)
		return err
	case v.Kind() == reflect.Bool:
		b, err := want[bool](d, "true or false")
		v.SetBool(b)
		return err
	}
	n, err := want[json.Number](d, "a number")
	if err == nil {
		if err = setNumber(v, string(n)); err != nil {
			return d.fail("%w", err)
		}
	}
	return err
}

// setNumber parses a number and checks that v's type can hold it.
func setNumber(v reflect.Value, text string) error {
	switch {
	case v.CanInt():
		if text == "-0" {
			return errors.New("expected a whole number, found -0")
		}
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		v.SetInt(n)
		return err
	case v.CanUint():
		n, err := strconv.ParseUint(text, 10, v.Type().Bits())
		v.SetUint(n)
		return err
	}
	n, err := strconv.ParseFloat(text, v.Type().Bits())
	v.SetFloat(n)
	return err
}

// object reads the fields of a struct.
func (d *decoder) object(v reflect.Value) error {
	if err := d.delim('{'); err != nil {
		return err
	}
	fields := fieldsOf(v.Type())
	var seen uint64 // a bit for each field
	for d.json.More() {
		name, err := want[string](d, "a name")
		if err != nil {
			return err
		}
		if err := d.member(v, fields, name, &seen); err != nil {
			return fmt.Errorf("%.100s: %w", name, err)
		}
	}
	if err := d.delim('}'); err != nil {
		return err
	}
	if missing := fields.required &^ seen; missing != 0 && !d.loose {
		return d.fail("%s is missing", fields.name(missing))
	}
	return nil
}

// member reads the value of one field of a struct.
func (d *decoder) member(v reflect.Value, all *fields, name string, seen *uint64) error {
	f, known := all.byName[name]
	switch {
	case !known && d.loose:
		return d.skip()
	case !known:
		return d.fail("unknown field")
	case *seen&(1<<f.number) != 0:
		return d.fail("it appears twice")
	}
	*seen |= 1 << f.number
	if d.loose && d.null() {
		return nil
	}
	return d.value(v.FieldByIndex(f.index), f.most)
}

// list reads the elements of a slice.
func (d *decoder) list(v reflect.Value, most int) error {
	if err := d.delim('['); err != nil {
		return err
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	for n := 0; d.json.More(); n++ {
		if n == most {
			return d.fail("more than %d elements", most)
		}
		v.Grow(1)
		v.SetLen(n + 1)
		if err := d.value(v.Index(n), defaultMost); err != nil {
			return fmt.Errorf("[%d]: %w", n, err)
		}
	}
	return d.delim(']')
}

// dictionary reads a map with string keys.
func (d *decoder) dictionary(v reflect.Value, most int) error {
	if err := d.delim('{'); err != nil {
		return err
	}
	v.Set(reflect.MakeMap(v.Type()))
	for d.json.More() {
		name, err := want[string](d, "a name")
		if err != nil {
			return err
		}
		key, element := reflect.ValueOf(name), reflect.New(v.Type().Elem()).Elem()
		if v.MapIndex(key).IsValid() {
			return fmt.Errorf("%.100s: %w", name, d.fail("it appears twice"))
		}
		if v.Len() == most {
			return d.fail("more than %d elements", most)
		}
		if err := d.value(element, defaultMost); err != nil {
			return fmt.Errorf("%.100s: %w", name, err)
		}
		v.SetMapIndex(key, element)
	}
	return d.delim('}')
}

// skip reads over a value.
func (d *decoder) skip() error {
	for depth := 0; ; {
		t, err := d.next()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth > maxDepth {
			return d.fail("nested deeper than %d", maxDepth)
		}
		if depth == 0 {
			return nil
		}
	}
}
