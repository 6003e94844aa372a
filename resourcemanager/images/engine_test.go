package images

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mammoth-os/mammoth/internal/wire"
)

func aFile(name string) entry            { return entry{name: name, content: []byte("x")} }
func aFolder(name string) entry          { return entry{name: name, mode: tar.TypeDir} }
func aLink(name, target string) entry    { return entry{name: name, link: target} }
func hardLink(name, target string) entry { return entry{name: name, hardLink: target} }

func withXattr(e entry, name, value string) entry {
	e.xattrs = map[string]string{name: value}
	return e
}

func acl(entries ...string) string { return "\x02\x00\x00\x00" + strings.Join(entries, "") }

// aclEntry has no number of a user or group unless it needs one.
func aclEntry(tag, may byte) string {
	number := byte(0xff)
	if tag == 2 || tag == 8 {
		number = 0
	}
	return string([]byte{tag, 0, may, 0, number, number, number, number})
}

func workDir(dir string) func(*ocispec.ImageConfig) {
	return func(c *ocispec.ImageConfig) { c.WorkingDir = dir }
}

func volume(dir string) func(*ocispec.ImageConfig) {
	return func(c *ocispec.ImageConfig) { c.Volumes = map[string]struct{}{dir: {}} }
}

func user(name string) func(*ocispec.ImageConfig) {
	return func(c *ocispec.ImageConfig) { c.User = name }
}

// judged is an image and what is said of it: nothing if an engine loads and starts it.
type judged struct {
	says   string
	set    func(*ocispec.ImageConfig)
	layers [][]entry
}

func one(entries ...entry) [][]entry { return [][]entry{entries} }

// unpacked are layers as engines unpack them, or do not.
func unpacked() []judged {
	long := strings.Repeat(strings.Repeat("n", 200)+"/", 19)
	deep := strings.Repeat(strings.Repeat("n", 200)+"/", 12)
	chain := []entry{aFolder("r"), aLink("s0", "r")}
	for n := range 40 {
		chain = append(chain, aLink(fmt.Sprint("s", n+1), fmt.Sprint("s", n)))
	}
	fifo := entry{name: "p", mode: tar.TypeFifo}
	owner, group, others := aclEntry(1, 6), aclEntry(4, 4), aclEntry(32, 4)
	nothing := func(layers ...[]entry) judged { return judged{layers: layers} }
	says := func(what string, entries ...entry) judged { return judged{says: what, layers: one(entries...)} }
	return []judged{
		// Links to files.
		{says: `links "h" to "web.txt", which does not precede it in the same layer; engines unpack each layer alone, so put a copy of the file into this layer`, layers: [][]entry{{aFile("web.txt")}, {hardLink("h", "web.txt")}}},
		says(`links "h" to "x", which does not precede it`, hardLink("h", "x"), aFile("x")),
		says(`links "h" to "h", which does not precede it`, aFile("h/x"), hardLink("h", "h")),
		says(`links "h" to "f/x", which does not precede it`, aFile("f"), hardLink("h", "f/x")),
		says(`links "h" to ".wh.f", which does not precede it`, aFile(".wh.f"), hardLink("h", ".wh.f")),
		says(`links "h" to the folder "d"`, aFile("d/x"), hardLink("h", "d")),
		says(`links "h" to the folder "/"`, hardLink("h", "/")),
		nothing([]entry{aLink("s", "no"), hardLink("h", "s"), fifo, hardLink("q", "p"), aFile("f"), hardLink("d/g", "../f"), hardLink("i", "f/"), aFile(".wh.w"), hardLink("v", "w")}),
		nothing([]entry{aFolder("r"), aFile("r/f"), aLink("s", "/r"), hardLink("h", "s/f"), hardLink("t", "s"), aFile("t/x")}),
		// Links above files.
		says(`has "s/f", but "/s" above it is a symbolic link to "nowhere", where the same layer has no folder yet; engines unpack each layer alone, so add that folder`, aLink("s", "nowhere"), aFile("s/f")),
		says(`has "s/f", but "/s" above it is a symbolic link to "r"`, aLink("s", "r"), aFile("s/f"), aFolder("r")),
		says(`has "s/x/f", but "/s" above it is a symbolic link to "no"`, aLink("s", "no"), aFile("s/x/f")),
		says(`has "s/f", but "/s" above it is a symbolic link to "s"`, aLink("s", "s"), aFile("s/f")),
		says(`has "s/f", but "/s" above it is a symbolic link to "f/../r"`, aFolder("r"), aFile("f"), aLink("s", "f/../r"), aFile("s/f")),
		says(`has "s/.wh.f", but "/s" above it is a symbolic link`, aLink("s", "no"), aFile("s/.wh.f")),
		says(`has "s/.wh..wh..opq", but "/s" above it is a symbolic link`, aLink("s", "no"), aFile("s/.wh..wh..opq")),
		says(`has "s40/f", but "/s40" above it is a symbolic link`, slices.Concat(chain, []entry{aFile("s40/f")})...),
		{says: `but "/s" above it is a symbolic link to "r"`, layers: [][]entry{{aFolder("r")}, {aLink("s", "r"), aFile("s/f")}}},
		nothing(slices.Concat(chain, []entry{aFile("s39/f")})),
		nothing([]entry{aFolder("r"), aLink("s", "r")}, []entry{aFile("s/f")}),
		nothing([]entry{aFolder("a"), aFolder("r"), aLink("a/s", "../../r/."), aFile("a/s/x/f"), aLink("t", "/"), aFile("t/f"), aLink("out", "../../../etc")}),
		// Files, devices and deletions above files.
		says(`has "a/b/c", but "/a" above it is not a folder in the layer`, aFile("a"), aFile("a/b/c")),
		says(`has "a/c", but "/a" above it is not a folder in the layer`, aFile("a/b"), aFile("a"), aFile("a/c")),
		says(`has "p/x", but "/p" above it is not a folder in the layer`, fifo, aFile("p/x")),
		says(`has "d/f", but deletes "/d" above it`, aFile(".wh.d"), aFile("d/f")),
		nothing([]entry{aFile("a")}, []entry{aFile("a/b"), aFile(".wh.d"), aFolder("d"), aFile("d/f"), aFile(".wh.x"), aFile("x")}),
		// Deletions.
		says(`"d" and deletes it with ".wh.d"`, aFile("d/f"), aFile(".wh.d")),
		says(`"s/f" and deletes it with "s/.wh.f"`, aFolder("r"), aFile("r/f"), aLink("s", "r"), aFile("s/.wh.f")),
		nothing([]entry{aFolder(".wh.d"), aLink(".wh.l", "x"), hardLink(".wh.h", "no"), aFile(".wh..wh.w"), aFile("n/.wh..wh..opq"), aFile("f"), aFile("f/.wh..wh..opq"), aFile(".wh....")}),
		// What takes another's place.
		says(`has the folder "d/e" and later something else in its place`, aFolder("d/e"), aFile("/d")),
		says(`has the folder "s/x" and later something else in its place`, aFolder("r"), aLink("s", "r"), aFolder("s/x"), aFile("/s")),
		says(`links "h" to the folder "f"`, aFile("/f"), aFolder("f"), hardLink("h", "f")),
		says(`has "/c/c", but "/c" above it is not a folder in the layer`, aLink("c", ".."), aLink("/c/c", "x")),
		nothing([]entry{aFile("a/b/c"), aFile("a"), aFolder("d"), aFile("/d"), aFolder("r"), aFolder("e"), aLink("/e", "r"), aLink("s", "r"), aFolder("/s"), aFile("s/f")}),
		// The root, names and types.
		says(`has "/", which is the container's root and can only be a folder`, aLink("/", "x")),
		nothing([]entry{aFolder("/"), aFile("."), aFile("a/../b"), aFile("name\xff")}),
		says(`has a name of 4001 bytes`, aFile(long+strings.Repeat("m", 90)+"/"+strings.Repeat("x", 91))),
		says(`whose path is longer than 4000 bytes`, aFolder(deep), aLink("s", deep), aFile("s/"+deep+"m")),
		nothing([]entry{aFile(long + strings.Repeat("m", 90) + "/" + strings.Repeat("x", 90)), aFile(".wh." + strings.Repeat("n", 255)), aLink("l", strings.Repeat("t", 4095))}),
		says(`links "l" to a name of 4096 bytes`, aLink("l", strings.Repeat("t", 4096))),
		says(`a name with an element of 256 bytes`, aFile(".wh."+strings.Repeat("n", 256))),
		says(`has "c" as an entry of the type '7'`, entry{name: "c", mode: tar.TypeCont}),
		nothing([]entry{{name: "c", mode: tar.TypeChar, major: 1, minor: 3}, {name: "z", mode: tar.TypeChar}, {name: "b", mode: tar.TypeBlock, major: 8}}),
		// Extended attributes.
		says(`has "c" with the extended attribute "security.capability", which is not of a form that the kernel knows`, withXattr(aFile("c"), "security.capability", "b")),
		says(`which has no name of its own`, withXattr(aFolder("c"), "user.", "b")),
		says(`whose name must have 1 to 255 bytes`, withXattr(aFile("c"), "foo."+strings.Repeat("a", 252), "b")),
		says(`which is longer than 64KiB`, withXattr(aFile("c"), "foo.a", strings.Repeat("b", 64<<10+1))),
		says(`which is not an access control list that the kernel knows`, withXattr(aFile("c"), "system.posix_acl_access", acl(owner, group))),
		says(`which is not an access control list that the kernel knows`, withXattr(aFile("c"), "system.posix_acl_access", acl(owner, others, group))),
		says(`which is not an access control list that the kernel knows`, withXattr(aLink("c", "x"), "system.posix_acl_access", "b")),
		says(`which only folders may have`, withXattr(aFile("c"), "system.posix_acl_default", acl(owner, group, others))),
		nothing([]entry{
			withXattr(aFile("a"), "user.a", "b"), withXattr(aLink("b", "x"), "user.", "b"), withXattr(aFile("c"), "foo.a", "b"),
			withXattr(aFile("d"), "security.capability", "\x01\x00\x00\x02"+strings.Repeat("\x00", 16)), withXattr(aFile("e"), "security.capability", "\x01\x00\x00\x03"+strings.Repeat("\x00", 20)),
			withXattr(aFile("f"), "system.posix_acl_access", acl(owner, group, others)), withXattr(aFolder("g"), "system.posix_acl_default", acl(owner, group, aclEntry(8, 7), aclEntry(16, 7), others)),
			withXattr(aFile(".wh.h"), "user.", "b"), withXattr(aFile("i"), "system.posix_acl_access", "\x01\x00\x00\x00"), withXattr(aFile("j"), "system.posix_acl_default", acl()),
		}),
	}
}

// started are settings with which engines start a container of an image, or do not.
func started() []judged {
	long := "/" + strings.Repeat(strings.Repeat("n", 200)+"/", 19) + strings.Repeat("m", 100) + "/"
	settings := func(layers [][]entry, sets map[string]func(*ocispec.ImageConfig)) (all []judged) {
		for says, set := range sets {
			all = append(all, judged{says, set, layers})
		}
		return all
	}
	odd := [][]entry{
		{aFile("f"), aLink("s", "f"), aLink("loop", "loop"), {name: "p", mode: tar.TypeFifo}, aFolder("was/x"), aLink("none", "/proc/x"), aLink("root", "/")},
		{aFile("was"), aFile("d/f")},
		{aFolder("d")},
	}
	all := settings(odd, map[string]func(*ocispec.ImageConfig){
		`the image's WORKDIR is "/f", but "/f" is a file in the image or in every container; name a folder, or a path where nothing is`: workDir("/f"),
		`the image's WORKDIR is "/f/x/y", but "/f" is a file`:                                                                           workDir("/f/x/y"),
		`the image's WORKDIR is "/s", but "/f" is a file`:                                                                               workDir("/s"),
		`the image's WORKDIR is "/p", but "/p" is a file`:                                                                               workDir("/p"),
		`the image's WORKDIR is "/d/f", but "/d/f" is a file`:                                                                           workDir("/d/f"),
		`the image's WORKDIR is "/etc/hosts", but "/etc/hosts" is a file`:                                                               workDir("/etc/hosts"),
		`the image's WORKDIR is "/loop", which leads through more than 255`:                                                             workDir("/loop"),
		`WORKDIR is "/none", which leads to "/proc/x", where there is no folder`:                                                        workDir("/none"),
		`WORKDIR is "/proc/x", where there is no folder and the kernel does not allow`:                                                  workDir("/proc/x"),
		`WORKDIR is "/proc/cpuinfo", where there is no folder`:                                                                          workDir("/proc/cpuinfo"),
		`WORKDIR is "/proc/self/exe", where there is no folder`:                                                                         workDir("/proc/self/exe"),
		`WORKDIR is "/sys/kernel/x", where there is no folder`:                                                                          workDir("/sys/kernel/x"),
		`WORKDIR is "/dev/null/x", where every container has a device`:                                                                  workDir("/dev/null/x"),
		`WORKDIR is "/dev/pts/x", where there is no folder`:                                                                             workDir("/dev/pts/x"),
		`names, including those in symbolic links`:                                                                                      workDir(strings.Repeat("/a", 256)),
		`which is a path of 4000 bytes; the limit is 3999`:                                                                              workDir(long + strings.Repeat("x", 4000-len(long))),
		`the image's VOLUME has "/f", but "/f" is a file in the image`:                                                                  volume("/f"),
		`the image's VOLUME has "f/x", but "/f" is a file`:                                                                              volume("f/x"),
		`the image's VOLUME has "/was/x", but "/was" is a file`:                                                                         volume("/was/x"),
		`the image's VOLUME has "/root", which leads to "/", which would hide`:                                                          volume("/root"),
		`the image's VOLUME has "/etc/mtab", which leads to "/proc/mounts"`:                                                             volume("/etc/mtab"),
		`the image's VOLUME has "/dev/console", but "/dev/console" is a file`:                                                           volume("/dev/console"),
		`the image's VOLUME has "/dev/ptmx", which would hide`:                                                                          volume("/dev/ptmx"),
		`the image's VOLUME has "/sys/x", where there is no folder`:                                                                     volume("/sys/x"),
		`a folder's name of 256 bytes`:                                                                                                  volume("/" + strings.Repeat("n", 256)),
	})
	fine := [][]entry{
		{aFile("f"), aFile("g"), aFile("d/f"), aFolder("e"), aLink("s", "e"), aLink("none", "../no/where"), aLink("sys", "x"), aLink("run", "/proc/sys"), aFile("etc/passwd"), aFile("opq/f"), aFile("dev")},
		{aFile(".wh.f"), aFolder("g"), aFile(".wh.d"), aFile("opq/.wh..wh..opq"), {name: "c", mode: tar.TypeChar}},
	}
	for _, dir := range []string{
		"/f", "/g", "/d/f", "/s/x", "/none/x", "/opq/f", "/c", "/f/../h", "/proc", "/proc/self/fd", "/proc/sys/kernel", "/run", "/sys/kernel", "/sys/fs/cgroup", "/dev/x", "/dev/shm/x", strings.Repeat("/a", 255), long + strings.Repeat("x", 3999-len(long)),
	} {
		all = append(all, judged{set: workDir(dir), layers: fine})
	}
	return append(all,
		judged{"", volume("/sys"), fine},
		judged{"", func(c *ocispec.ImageConfig) {
			c.Volumes = map[string]struct{}{}
			for _, dir := range []string{"f", "/g", "/d/f/x", "/s", "/none", "/dev/shm", "/sys/kernel", "/etc", "/c", "/etc/hosts/../h"} {
				c.Volumes[dir] = struct{}{}
			}
		}, fine},
		judged{"the image has a folder at /etc/hosts, where engines put a file", nil, one(aFolder("etc/hosts"))},
		judged{"the image has a folder at /etc/resolv.conf", nil, one(aFolder("etc/resolv.conf"))},
		judged{"the image has a folder at /etc/passwd, which engines read as a file", nil, one(aFolder("etc/passwd"))},
		judged{"the image has a folder at /etc/group", user("7"), one(aFolder("etc/group"))},
		judged{"", volume("/etc/hosts"), one(aFolder("etc/hosts"))},
		judged{"", user("7:8:9"), [][]entry{{aFolder("etc/passwd"), aFolder("etc/hosts")}, {aFile("etc/.wh.passwd"), aFile("etc/hosts")}}},
	)
}

func (j judged) image(t *testing.T) testImage {
	image := webImage(t)
	setDefaultArchitecture(&image)
	image.set = j.set
	for _, entries := range j.layers {
		image.layers = append(image.layers, tarOf(t, entries...))
	}
	return image
}

// name is what tells a case from others.
func (j judged) name() string {
	var config ocispec.ImageConfig
	if j.set != nil {
		j.set(&config)
	}
	return fmt.Sprintf("%.300s, WORKDIR %.60q, VOLUME %.60v, %q", fmt.Sprint(j.layers), config.WorkingDir, config.Volumes, j.says)
}

func TestImagesAreJudgedAsEnginesDo(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{})
	for _, j := range append(unpacked(), started()...) {
		image := j.image(t)
		image.architecture = "amd64"
		_, err := store.Import(t.Context(), bytes.NewReader(tarOf(t, image.saved(t, "web:1")...)), "web:1")
		if j.says == "" && err != nil {
			t.Errorf("%s: %v", j.name(), err)
		}
		if j.says != "" && (!errdefs.IsInvalidArgument(err) || !strings.Contains(wire.Sentence(err), j.says)) {
			t.Errorf("%s: it says %v", j.name(), err)
		}
	}
}

// TestImagesOfSharedLayersAreJudgedByAllOfThem pushes images of layers that were read before, for other images.
func TestImagesOfSharedLayersAreJudgedByAllOfThem(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{})
	push := func(says string, image testImage) {
		t.Helper()
		pushBlobs(t, store, "web", image)
		status := 201
		if says != "" {
			status = 400
		}
		putManifest(t, store, "/v2/web/manifests/1", image.manifest(t), ocispec.MediaTypeImageManifest).want(t, status, says)
	}
	image := judged{layers: [][]entry{{aFile("d/f")}, {aFile(".wh.d")}}}.image(t)
	image.architecture = "amd64"
	push("", image)
	image.set = workDir("/d/f")
	push("", image)
	image.layers = image.layers[:3]
	push("WORKDIR", image)
	// A layer whose tree was let go is read again.
	for sum, facts := range store.examiner.layers {
		facts.tree = nil
		store.examiner.layers[sum] = facts
	}
	push("WORKDIR", image)
}

func TestTheWorkOnOneLayerIsBounded(t *testing.T) {
	image := webImage(t)
	image.layers = append(image.layers, tarOf(t, aLink("s", strings.Repeat("t", 600)), aLink("u", strings.Repeat("t", 600)), aFile("a/b/c/d/e/f")))
	bothWays(t, Limits{LinkBytes: 1 << 10}, image, refused(errdefs.ErrResourceExhausted, "are longer than 1KiB together, which is the limit"))
	bothWays(t, Limits{PathSteps: 30}, image, refused(errdefs.ErrResourceExhausted, "have more than 30 path elements together, including links, which is the limit"))
	bothWays(t, Limits{LinkBytes: 1300, PathSteps: 200}, image, taken)
}

// TestEnginesLoadAndStartWhatIsTaken has the machine's engine judge the same images.
func TestEnginesLoadAndStartWhatIsTaken(t *testing.T) {
	newEngine(t)
	judge := func(kind string, cases []judged, starts bool) {
		for n, j := range cases {
			t.Run(fmt.Sprint(kind, n), func(t *testing.T) {
				t.Parallel()
				e := newEngine(t)
				name := fmt.Sprintf("mammoth-test-images/judged-%s:%d", kind, n)
				err := e.load(j.image(t), name)
				if err == nil && starts {
					err = e.start(name)
				}
				if (err == nil) != (j.says == "") {
					t.Errorf("%s: the engine says %v", j.name(), err)
				}
			})
		}
	}
	judge("unpacked", unpacked(), false)
	judge("started", started(), true)
}

// load has the engine take an image from an archive.
func (e *engine) load(image testImage, name string) error {
	answer, err := e.api.ImageLoad(e.t.Context(), bytes.NewReader(tarOf(e.t, image.saved(e.t, name)...)))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if !strings.Contains(string(said), "Loaded image") {
		return fmt.Errorf("%s", said)
	}
	e.created = append(e.created, name)
	return nil
}

// start has the engine start a container. Its program is no program, so it ends at once.
func (e *engine) start(name string) error {
	made, err := e.api.ContainerCreate(e.t.Context(), &container.Config{Image: name}, nil, nil, nil, "")
	if err != nil {
		return err
	}
	err = e.api.ContainerStart(e.t.Context(), made.ID, container.StartOptions{})
	if removed := e.api.ContainerRemove(e.t.Context(), made.ID, container.RemoveOptions{Force: true, RemoveVolumes: true}); removed != nil {
		e.t.Error(removed)
	}
	return err
}

func TestLargeTreesAreNotKept(t *testing.T) {
	tree := func(names int64) layerFacts { return layerFacts{tree: &tree{linkBytes: 32 * names}} }
	store := openStore(t, t.TempDir(), Limits{})
	store.examiner.remember(map[digest.Digest]layerFacts{"large": tree(maxCachedTree + 1), "small": tree(maxCachedTree)})
	if store.examiner.layers["large"].tree != nil || store.examiner.layers["small"].tree == nil {
		t.Errorf("kept %v", store.examiner.layers)
	}
	for n := range 20 {
		store.examiner.remember(map[digest.Digest]layerFacts{digest.Digest(fmt.Sprint(n)): tree(maxCachedTrees / 10)})
	}
	var kept int64
	for _, facts := range store.examiner.layers {
		if facts.tree != nil {
			kept += facts.tree.cost()
		}
	}
	if len(store.examiner.layers) != 22 || kept > maxCachedTrees || kept < maxCachedTrees/2 {
		t.Errorf("%d layers with %d names are kept", len(store.examiner.layers), kept)
	}
}
