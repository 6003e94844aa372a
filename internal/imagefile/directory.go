package imagefile

import (
	"archive/tar"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strings"

	"github.com/containerd/errdefs"
)

// packDirectory writes a directory's content as the layer, in lexical order, without an old output file.
func packDirectory(out *tar.Writer, options *PackOptions) (program, error) {
	root, err := os.OpenRoot(options.Source)
	if err != nil {
		return program{}, err
	}
	defer root.Close()
	if len(options.Entrypoint) == 0 {
		name, err := onlyExecutable(root)
		if err != nil {
			return program{}, err
		}
		options.Entrypoint = []string{"/" + name}
	}
	found, err := inspect(root, options.Entrypoint[0])
	if err != nil {
		return found, err
	}
	old, err := os.Stat(options.Output)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return found, err
	}
	err = fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		info, err := entry.Info()
		if err != nil || os.SameFile(info, old) {
			return err
		}
		return packEntry(out, root, name, info)
	})
	if err != nil {
		return found, fmt.Errorf("pack %s: %w", options.Source, err)
	}
	return found, nil
}

func packEntry(out *tar.Writer, root *os.Root, name string, info fs.FileInfo) error {
	header := &tar.Header{Name: name, Mode: unixMode(info.Mode()), ModTime: epoch}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		file, err := root.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		return writeEntry(out, name, header.Mode, file, info.Size())
	case mode.IsDir():
		header.Typeflag, header.Name = tar.TypeDir, name+"/"
	case mode&fs.ModeSymlink != 0:
		target, err := root.Readlink(name)
		if err != nil {
			return err
		}
		header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, target, 0o777
	default:
		return fmt.Errorf("%s is neither a file, a folder nor a link: %w", name, errdefs.ErrInvalidArgument)
	}
	return out.WriteHeader(header)
}

func unixMode(mode fs.FileMode) int64 {
	bits := int64(mode.Perm())
	for flag, bit := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if mode&flag != 0 {
			bits |= bit
		}
	}
	return bits
}

// onlyExecutable finds the program of a directory's image if none was named.
func onlyExecutable(root *os.Root) (string, error) {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return "", err
	}
	var executable []string
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			return "", err
		}
		if info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			executable = append(executable, entry.Name())
		}
	}
	switch len(executable) {
	case 1:
		return executable[0], nil
	case 0:
		return "", fmt.Errorf("%s has no executable file in its root; name the program to run: %w", root.Name(), errdefs.ErrInvalidArgument)
	}
	return "", fmt.Errorf("%s has several executable files in its root (%s); name the one to run: %w",
		root.Name(), strings.Join(executable, ", "), errdefs.ErrInvalidArgument)
}

// inspect examines the program of a directory's image and its interpreter. A name without a slash is searched on the
// container's own path, of which nothing is known here.
func inspect(root *os.Root, name string) (program, error) {
	host := program{architecture: runtime.GOARCH}
	if !path.IsAbs(name) {
		return host, nil
	}
	for range 4 {
		file, err := openInside(root, name)
		if errors.Is(err, fs.ErrNotExist) {
			return host, fmt.Errorf("%s has no %s: %w", root.Name(), name, errdefs.ErrInvalidArgument)
		}
		if err != nil {
			return host, fmt.Errorf("look at %s: %w", name, err)
		}
		found, err := readProgram(file)
		_ = file.Close()
		switch {
		case err != nil:
			return found, fmt.Errorf("%s is %w", name, err)
		case found.script:
			name = found.interpreter
			continue
		case found.interpreter != "":
			linker, err := openInside(root, found.interpreter)
			if err != nil {
				return found, fmt.Errorf("%s is dynamically linked: it needs %s, which %s does not have; add it with the libraries, or build it static (CGO_ENABLED=0 for Go): %w",
					name, found.interpreter, root.Name(), errdefs.ErrInvalidArgument)
			}
			_ = linker.Close()
		}
		return found, nil
	}
	return host, fmt.Errorf("%s is a script of a script of a script: %w", name, errdefs.ErrInvalidArgument)
}

// openInside opens a file by its path in the image, where absolute links start at the image's root.
func openInside(root *os.Root, name string) (*os.File, error) {
	rest := strings.Split(name, "/")
	resolved := "."
	for links := 0; len(rest) > 0; {
		next := path.Join("/", resolved, rest[0])[1:]
		rest = rest[1:]
		target, err := root.Readlink(cmp.Or(next, "."))
		if err != nil {
			resolved = next // Not a link, or missing, which Open reports.
			continue
		}
		if links++; links > 40 {
			return nil, fmt.Errorf("%s: too many links: %w", name, fs.ErrInvalid)
		}
		if path.IsAbs(target) {
			resolved = "."
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return root.Open(cmp.Or(resolved, "."))
}
