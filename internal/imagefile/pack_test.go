package imagefile

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// elf is the smallest program that readProgram understands: a header, one segment, and the name of a dynamic linker
// if it is to have one.
func elf(machine uint16, linker string) []byte {
	content := make([]byte, 64+56)
	copy(content, "\x7fELF\x02\x01\x01")
	binary.LittleEndian.PutUint16(content[16:], elfExecutable)
	binary.LittleEndian.PutUint16(content[18:], machine)
	binary.LittleEndian.PutUint64(content[32:], 64)
	binary.LittleEndian.PutUint16(content[54:], 56)
	binary.LittleEndian.PutUint16(content[56:], 1)
	binary.LittleEndian.PutUint32(content[64:], 1)
	if linker != "" {
		binary.LittleEndian.PutUint32(content[64:], elfInterpreter)
		binary.LittleEndian.PutUint64(content[64+8:], uint64(len(content)))
		binary.LittleEndian.PutUint64(content[64+32:], uint64(len(linker)+1))
		content = append(content, linker+"\x00"...)
	}
	return content
}

const (
	amd64 = 62
	arm64 = 183
)

// tree makes files; a content that begins with "->" is a symbolic link, a name that ends with "*" an executable.
func tree(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, strings.TrimSuffix(name, "*"))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if strings.HasSuffix(name, "*") {
			mode = 0o755
		}
		var err error
		if target, ok := strings.CutPrefix(content, "->"); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(content), mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// packed reads an image file: all its files by name.
func packed(t testing.TB, path string) map[string][]byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	files, _ := untar(t, content)
	return files
}

func untar(t testing.TB, content []byte) (files map[string][]byte, headers map[string]*tar.Header) {
	t.Helper()
	files, headers = map[string][]byte{}, map[string]*tar.Header{}
	for r := tar.NewReader(bytes.NewReader(content)); ; {
		header, err := r.Next()
		if err == io.EOF {
			return files, headers
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name], headers[header.Name] = content, header
	}
}

// open reads an image's config and its layer.
func open(t testing.TB, path string) (config ocispec.Image, names []string, layer map[string]*tar.Header) {
	t.Helper()
	files := packed(t, path)
	var list []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(files["manifest.json"], &list); err != nil || len(list) != 1 || len(list[0].Layers) != 1 {
		t.Fatalf("manifest.json: %s, %v", files["manifest.json"], err)
	}
	if err := json.Unmarshal(files[list[0].Config], &config); err != nil {
		t.Fatal(err)
	}
	_, layer = untar(t, files[list[0].Layers[0]])
	return config, list[0].RepoTags, layer
}

func TestPacksAProgram(t *testing.T) {
	dir := tree(t, map[string]string{"hello*": string(elf(amd64, ""))})
	out := filepath.Join(dir, "Hello.image")
	err := Pack(PackOptions{
		Source: filepath.Join(dir, "hello"), Output: out, Ports: []int{8080}, Args: []string{"--loud"},
		Env: []string{"A=b"}, User: "1000", WorkingDir: "/data", Labels: map[string]string{"team": "blue"},
	})
	if err != nil {
		t.Fatal(err)
	}
	config, names, layer := open(t, out)
	if !slices.Equal(names, []string{"hello:latest"}) {
		t.Errorf("named %q", names)
	}
	c := config.Config
	if config.Architecture != "amd64" || config.OS != "linux" || !slices.Equal(c.Entrypoint, []string{"/hello"}) ||
		!slices.Equal(c.Cmd, []string{"--loud"}) || !slices.Equal(c.Env, []string{"A=b"}) || c.User != "1000" ||
		c.WorkingDir != "/data" || c.Labels["team"] != "blue" || len(c.ExposedPorts) != 1 {
		t.Errorf("config %+v", config)
	}
	if _, ok := c.ExposedPorts["8080/tcp"]; !ok {
		t.Errorf("ports %v", c.ExposedPorts)
	}
	if len(layer) != 1 || layer["hello"].Mode != 0o755 || layer["hello"].Uid != 0 {
		t.Errorf("layer %v", layer)
	}
}

func TestPacksADirectory(t *testing.T) {
	dir := tree(t, map[string]string{
		"app*":          "#!/bin/sh\necho hello\n",
		"etc/app.conf":  "x",
		"bin/busybox*":  string(elf(arm64, "/lib/ld.so")),
		"bin/sh":        "->/usr/bin/../../bin/busybox",
		"lib":           "->usr/lib",
		"usr/lib/ld.so": "a linker", "usr/bin/other*": "x",
	})
	out := filepath.Join(dir, "app.image")
	for range 2 { // The second time the output lies in the directory.
		if err := Pack(PackOptions{Source: dir, Output: out, Name: "team/app:3"}); err != nil {
			t.Fatal(err)
		}
		config, names, layer := open(t, out)
		if config.Architecture != "arm64" || !slices.Equal(config.Config.Entrypoint, []string{"/app"}) || !slices.Equal(names, []string{"team/app:3"}) {
			t.Errorf("config %+v, names %q", config, names)
		}
		want := []string{"app", "bin/", "bin/busybox", "bin/sh", "etc/", "etc/app.conf", "lib", "usr/", "usr/bin/", "usr/bin/other", "usr/lib/", "usr/lib/ld.so"}
		if got := slices.Sorted(maps.Keys(layer)); !slices.Equal(got, want) {
			t.Errorf("layer %q, want %q", got, want)
		}
		if layer["bin/sh"].Linkname != "/usr/bin/../../bin/busybox" || layer["app"].Mode != 0o755 || layer["etc/app.conf"].Mode != 0o644 {
			t.Errorf("layer %v", layer)
		}
	}
}

func TestTheSameInputGivesTheSameFile(t *testing.T) {
	files := map[string]string{"app*": string(elf(amd64, "")), "a/b": "1", "a/c": "2"}
	var first []byte
	for range 3 {
		out := filepath.Join(t.TempDir(), "app.image")
		labels := map[string]string{"a": "1", "b": "2", "c": "3", "d": "4"}
		if err := Pack(PackOptions{Source: tree(t, files), Output: out, Labels: labels, Ports: []int{3, 1, 2}}); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if first != nil && !bytes.Equal(first, content) {
			t.Error("it differs")
		}
		first = content
	}
}

// Where an image file cannot go, nothing is made, and the sentence names the place once.
func TestAnOutputThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"web": string(elf(amd64, "")), "file": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	for output, says := range map[string]string{
		"no/such/web.image": "the folder no/such that the image file no/such/web.image is to go into does not exist; make it with `mkdir -p no/such`, or name another: not found",
		"file/web.image":    "the image file file/web.image cannot be in file, which is not a folder; name another: invalid argument",
		"file/sub/x.image":  "the image file file/sub/x.image cannot be in file/sub, which is not a folder; name another: invalid argument",
		".":                 ". is a folder; name a file in it, as in NAME.image: invalid argument",
	} {
		if err := Pack(PackOptions{Source: "web", Output: output, Name: "web"}); err == nil || err.Error() != says {
			t.Errorf("%s: %v, want %s", output, err, says)
		}
	}
	if err := Pack(PackOptions{Source: "nowhere", Output: "web.image"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, want that there is no such file", err)
	}
	if left, err := os.ReadDir("."); err != nil || len(left) != 2 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestRefusesToPack(t *testing.T) {
	static := string(elf(amd64, ""))
	object := elf(amd64, "")
	object[16] = 1
	for name, c := range map[string]struct {
		files   map[string]string
		source  string
		options PackOptions
		says    string
	}{
		"dynamic":           {map[string]string{"web*": string(elf(amd64, "/lib64/ld-linux-x86-64.so.2"))}, "web", PackOptions{}, "is dynamically linked: it needs /lib64/ld-linux-x86-64.so.2"},
		"script":            {map[string]string{"web*": "#!/bin/sh\n"}, "web", PackOptions{}, "is a script"},
		"text":              {map[string]string{"web*": "hello"}, "web", PackOptions{}, "is not a Linux program"},
		"empty":             {map[string]string{"web*": ""}, "web", PackOptions{}, "is not a Linux program"},
		"windows":           {map[string]string{"web*": "MZ\x90\x00"}, "web", PackOptions{}, "is a Windows program"},
		"macos":             {map[string]string{"web*": "\xcf\xfa\xed\xfe\x07"}, "web", PackOptions{}, "is a macOS program"},
		"object":            {map[string]string{"web*": string(object)}, "web", PackOptions{}, "is an object file"},
		"strange machine":   {map[string]string{"web*": string(elf(9999, ""))}, "web", PackOptions{}, "unknown machine (number 9999)"},
		"truncated":         {map[string]string{"web*": static[:90]}, "web", PackOptions{}, "is a truncated program"},
		"nothing to run":    {map[string]string{"data": "x"}, "", PackOptions{}, "no executable file in its root"},
		"too much to run":   {map[string]string{"a*": static, "b*": static}, "", PackOptions{}, "several executable files in its root (a, b)"},
		"no such program":   {map[string]string{"a*": static}, "", PackOptions{Entrypoint: []string{"/b"}}, "has no /b"},
		"no linker":         {map[string]string{"a*": string(elf(amd64, "/lib/ld.so"))}, "", PackOptions{}, "is dynamically linked: it needs /lib/ld.so, which"},
		"no interpreter":    {map[string]string{"a*": "#!/bin/sh\n"}, "", PackOptions{}, "has no /bin/sh"},
		"link in a circle":  {map[string]string{"a*": "#!/b\n", "b": "->c", "c": "->b"}, "", PackOptions{}, "too many links"},
		"bad name":          {map[string]string{"a*": static}, "", PackOptions{Name: "My Image"}, "is not an image name"},
		"digest as name":    {map[string]string{"a*": static}, "", PackOptions{Name: "a@sha256:" + strings.Repeat("0", 64)}, "not under the digest"},
		"bad port":          {map[string]string{"a*": static}, "", PackOptions{Ports: []int{70000}}, "70000 is not a port"},
		"variable twice":    {map[string]string{"a*": static}, "", PackOptions{Env: []string{"A=1", "A=2"}}, "A is given twice"},
		"bad variable":      {map[string]string{"a*": static}, "", PackOptions{Env: []string{"A"}}, "must be KEY=VALUE"},
		"relative work dir": {map[string]string{"a*": static}, "", PackOptions{WorkingDir: "data"}, "must begin with a slash"},
	} {
		t.Run(name, func(t *testing.T) {
			c.options.Source = filepath.Join(tree(t, c.files), c.source)
			out := t.TempDir()
			c.options.Output = filepath.Join(out, "web.image")
			err := Pack(c.options)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("it says %v, which lacks %q", err, c.says)
			}
			if !errors.Is(err, errdefs.ErrInvalidArgument) && name != "link in a circle" {
				t.Errorf("%v is not of the class invalid argument", err)
			}
			if left, err := os.ReadDir(out); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func FuzzReadProgram(f *testing.F) {
	f.Add(elf(amd64, ""))
	f.Add(elf(arm64, "/lib/ld.so"))
	f.Add([]byte("#! /bin/sh -e\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		found, err := readProgram(bytes.NewReader(content))
		if err != nil && !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%v is not of the class invalid argument", err)
		}
		if err == nil && !found.script && found.architecture == "" {
			t.Error("a program without an architecture")
		}
	})
}
