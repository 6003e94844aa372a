// Package notes keeps what a daemon must know again at its next start: small values in JSON, under a checksum, in a file that
// has a copy beside it. What many commits a second change is kept by internal/records instead.
package notes

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
)

// ErrDamaged is what reading gives if neither the file nor its copy is as it was written.
var ErrDamaged = errors.New("it was damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sealed is a value as it is written: the checksum is of its JSON without blanks.
type sealed struct {
	Notes    json.RawMessage `json:"notes"`
	Checksum string          `json:"crc32c"`
}

// Seal gives the JSON of a value with its checksum.
func Seal(value any) ([]byte, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("note: %w", err)
	}
	out, err := json.MarshalIndent(sealed{Notes: text, Checksum: checksum(text)}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("note: %w", err)
	}
	return append(out, '\n'), nil
}

// Unseal reads into value what Seal has given. Its error is ErrDamaged if that was changed since; value is then as it was.
func Unseal(data []byte, value any) error {
	var from sealed
	var text bytes.Buffer
	if json.Unmarshal(data, &from) != nil || json.Compact(&text, from.Notes) != nil || checksum(text.Bytes()) != from.Checksum {
		return ErrDamaged
	}
	return json.Unmarshal(text.Bytes(), value)
}

func checksum(text []byte) string { return fmt.Sprintf("%08x", crc32.Checksum(text, castagnoli)) }

// Copy is where the copy of a file is.
func Copy(path string) string { return path + ".copy" }

// Exist reports whether something was written there: one of the two files is enough.
func Exist(path string) bool {
	for _, file := range []string{path, Copy(path)} {
		if _, err := os.Stat(file); err == nil {
			return true
		}
	}
	return false
}

// Read reads into value what Write has written. One of the two files is enough; the next Write puts the other right. Its error
// is fs.ErrNotExist if both are missing, and ErrDamaged if one was damaged and the other is of no help.
func Read(path string, value any) error {
	err := read(path, value)
	if err == nil {
		return nil
	}
	of := read(Copy(path), value)
	if of == nil || errors.Is(err, fs.ErrNotExist) {
		return of
	}
	return err
}

func read(path string, value any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return Unseal(data, value)
}

// Write writes a value down. Whatever interrupts it, Read gives the value of before or this one.
func Write(path string, value any) error {
	data, err := Seal(value)
	if err != nil {
		return err
	}
	for _, file := range []string{path, Copy(path)} {
		// What is there already takes no room on a disk that may be full.
		if before, err := os.ReadFile(file); err == nil && bytes.Equal(before, data) {
			continue
		}
		if err := replace(file, data); err != nil {
			return err
		}
	}
	return nil
}

// replace writes a file that is whole and on the disk once it is there.
func replace(path string, data []byte) error {
	unfinished := path + ".new"
	file, err := os.OpenFile(unfinished, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		_ = os.Remove(unfinished)
		return err
	}
	return os.Rename(unfinished, path)
}
