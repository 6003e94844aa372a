package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mammoth-os/mammoth/internal/manifest"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// source is what a person deploys: a manifest, or an image.
type source struct {
	// named is the argument of the command.
	named string
	// folder is the folder of a manifest's files.
	folder string
	// manifest is its text; nil for an image.
	manifest []byte
	// archive is the image if it is not in an ordinary file; nil otherwise.
	archive io.Reader
}

// maxText is the largest manifest.
const maxText = 2 << 20

// openSource opens the argument: "-" for standard input, a pipe such as <(…), a file, or an image of the store. Text is a
// manifest, whatever its name.
func openSource(in io.Reader, named string) (source, error) {
	s := source{named: named, folder: "."}
	content := in
	if named != "-" {
		info, err := os.Stat(named)
		switch {
		case errors.Is(err, fs.ErrNotExist) && isManifestName(named):
			return s, usagef("%s: no such file or directory", named)
		case err != nil || info.IsDir():
			return s, nil // an image of the store, or what pushing it has to say
		}
		file, err := os.Open(named)
		if err != nil {
			return s, usageError{plainPathError(err)}
		}
		if info.Mode().IsRegular() {
			defer file.Close()
			s.folder = folderOf(named)
			// An ordinary file with an image is read again when it is pushed.
			head := make([]byte, 512)
			n, err := io.ReadFull(file, head)
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return s, plainPathError(err)
			}
			if !isManifestName(named) && (hasArchiveSuffix(named) || !isText(head[:n])) {
				return s, nil
			}
			s.manifest, err = readText(io.MultiReader(bytes.NewReader(head[:n]), file))
			return s, err
		}
		content = file
	}
	buffered := bufio.NewReader(content)
	head, err := buffered.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return s, fmt.Errorf("read %s: %w", s.title(), err)
	}
	if !isText(head) {
		s.archive = buffered
		return s, nil
	}
	s.manifest, err = readText(buffered)
	return s, err
}

// title is the source's name in a sentence.
func (s source) title() string {
	if s.named == "-" {
		return "standard input"
	}
	return s.named
}

// app reads the manifest; every mistake is a line of the error.
func (s source) app() (*apiv1.AppSpec, error) {
	app, err := manifest.ParseApp(s.manifest)
	if err != nil {
		return nil, usageError{inFile(s.title(), err)}
	}
	return app.Spec, nil
}

// mistakes puts the source's name before each mistake that the zone has found in the manifest. Other errors stay as they are.
func (s source) mistakes(err error) error {
	refusal := status.Convert(err)
	for _, detail := range refusal.Details() {
		found, ok := detail.(*apiv1.ManifestMistakes)
		if !ok {
			continue
		}
		var mistakes manifest.Errors
		for _, mistake := range found.GetMistakes() {
			mistakes = append(mistakes, manifest.Error{Line: int(mistake.GetLine()), Column: int(mistake.GetColumn()), Message: mistake.GetMessage()})
		}
		err = inFile(s.title(), mistakes)
		if refusal.Code() == codes.InvalidArgument {
			return usageError{err}
		}
		return err
	}
	return err
}

// folderOf is where the files beside one lie. What is open already, such as /dev/stdin or /proc/self/fd/3, has no folder of its own, as
// little as a pipe.
func folderOf(named string) string {
	folder := filepath.Dir(named)
	if top, _, _ := strings.Cut(strings.TrimPrefix(folder, "/"), "/"); filepath.IsAbs(folder) && (top == "dev" || top == "proc") {
		return "."
	}
	return folder
}

func isManifestName(named string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(named))
}

// isText distinguishes text from an archive, which has zeros near its beginning or is compressed.
func isText(head []byte) bool {
	for len(head) > 0 && !utf8.FullRune(head[max(0, len(head)-utf8.UTFMax):]) {
		head = head[:len(head)-1] // a character may be cut in two
	}
	return utf8.Valid(head) && !bytes.ContainsRune(head, 0)
}

// readText reads at most as much as a text may have; the caller refuses more.
func readText(from io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(from, maxText))
	if err != nil {
		return nil, plainPathError(err)
	}
	if data == nil {
		data = []byte{}
	}
	return data, nil
}
