package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mammoth-os/mammoth/companions/registry"
	"github.com/mammoth-os/mammoth/internal/records"
	"github.com/mammoth-os/mammoth/internal/resource"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager"
	"github.com/mammoth-os/mammoth/resourcemanager/images"
	"github.com/mammoth-os/mammoth/resourcemanager/term"
)

// managerSettings are the settings of a ResourceManager.
type managerSettings struct {
	dir, zone                   string
	listen, advertise           string
	nodeTimeout, reportInterval time.Duration
	keyRotation                 time.Duration
	eventRetention              int64
	allowHostNetwork, insecure  bool
	queues, record              string
	imageQuota, userImageQuota  byteCount
	// notes are the content of notesFile, which also has the store's id.
	notes     *zoneNotes
	notesFile string
}

// shared adds the flags that `mammoth up` also has.
func (s *managerSettings) shared(flags *pflag.FlagSet) {
	addressVar(flags, addressFlag{&s.listen, onPort}, "listen", defaultServer, "the address for everybody: nodes, masters, people, image uploads")
	s.nodeTimeout = 10 * time.Second
	lengthVar(flags, &s.nodeTimeout, "node-timeout", "how long a node may be silent before it counts as lost")
	flags.StringVar(&s.queues, "queues", "", "a file that declares the queue tree, followed when it changes (default: \"mammoth queue set\" sets it)")
	flags.StringVar(&s.record, "record", "", "a new file to record in what the zone is given, for \"mammoth replay\"; the zone's keys are in it")
	flags.Var(&s.imageQuota, "image-quota", "how much the image store may hold, uploads included (default: three quarters of its disk)")
	flags.Var(&s.userImageQuota, "image-quota-per-user", "how much of that may be of one user who is no operator (default: a quarter of the disk)")
	flags.BoolVar(&s.allowHostNetwork, "allow-host-network", false, "let apps use their node's network")
}

// daemonCommands run one daemon: the ResourceManager, a NodeManager, or an application master.
type daemonCommands struct {
	streams
	env func(string) string
}

func (c *daemonCommands) resourceManagerCommand() *cobra.Command {
	s := &managerSettings{}
	daemon := &daemonFlags{}
	cmd := &cobra.Command{
		Use:   "resourcemanager",
		Short: "Run a zone's ResourceManager",
		Long: `Resourcemanager owns a zone: its nodes, queues, apps, images and registry.

Every setting is a flag, and can stand in the file that --config names, where
--node-timeout is nodeTimeout.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := daemon.load(c.streams, cmd)
			if err != nil {
				return err
			}
			if s.dir == "" {
				return usagef("`mammoth resourcemanager` needs --dir, a folder for what must outlive it")
			}
			if err := s.checkRecord(); err != nil {
				return err
			}
			unlock, err := lockFolder(s.dir, "ResourceManager")
			if err != nil {
				return err
			}
			defer unlock()
			path := filepath.Join(s.dir, zoneFile)
			notes := &zoneNotes{Zone: newZoneName()}
			if err := keepNotes(path, notes); err != nil {
				return err
			}
			if s.zone != "" {
				notes.Zone = s.zone
			}
			s.zone, s.notes, s.notesFile = notes.Zone, notes, path
			c.spareMemory(zoneHeap)
			manager, err := newManager(cmd.Context(), *s, log)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.out, "the ResourceManager of zone %s listens at %s\n", s.zone, manager.Address())
			return manager.Run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	s.shared(flags)
	flags.StringVar(&s.dir, "dir", "", "a folder for what must outlive it")
	flags.StringVar(&s.zone, "zone", "", "the zone's name (default: made up at the first start)")
	addressVar(flags, addressFlag{&s.advertise, atPorts}, "advertise", "", "where masters and instances reach it (default: where it listens, or as their node does)")
	s.reportInterval = time.Second
	lengthVar(flags, &s.reportInterval, "report-interval", "how often nodes report when nothing changes")
	s.keyRotation = 24 * time.Hour
	lengthVar(flags, &s.keyRotation, "key-rotation", "how long one key signs the tokens of containers, at least 1h")
	flags.Int64Var(&s.eventRetention, "event-retention", 10_000, "how many events are kept")
	flags.BoolVar(&s.insecure, "insecure", false, "listen where other machines can connect, without TLS")
	must(cmd.MarkFlagDirname("dir"))
	daemon.add(cmd, "info")
	return cmd
}

// checkRecord refuses a recording file that cannot be created, before anything else happens.
func (s *managerSettings) checkRecord() error {
	if s.record == "" {
		return nil
	}
	if _, err := os.Lstat(s.record); err == nil {
		return usagef("there is a file at %s already, and a recording replaces none; record to another one", s.record)
	}
	if _, err := os.Stat(filepath.Dir(s.record)); err != nil {
		return usageError{plainPathError(err)}
	}
	return nil
}

// zoneFile marks a folder as a ResourceManager's.
const zoneFile = "zone.json"

// zoneNotes are what must be the same at every start on a folder.
type zoneNotes struct {
	Zone string `json:"zone"`
	// Share is each node's share at the first start of `mammoth up`, so that the use of its containers does not reduce it
	// later.
	Share *share `json:"share,omitempty"`
	// Store is the id of the ResourceManager's store, so that a missing store is noticed.
	Store string `json:"store,omitempty"`
}

// manager is a ResourceManager with its image store.
type manager struct {
	*resourcemanager.ResourceManager
	images *images.Store
	// followsFile is true if a file declares the queue tree.
	followsFile bool
}

// newManager builds a ResourceManager and listens.
func newManager(ctx context.Context, s managerSettings, log *slog.Logger) (*manager, error) {
	m := &manager{}
	var err error
	if s.queues != "" {
		if s.queues, err = filepath.Abs(s.queues); err != nil {
			return nil, fmt.Errorf("find %s: %w", s.queues, err)
		}
		m.followsFile = true
	}
	m.images, err = images.Open(filepath.Join(s.dir, "images"), images.Limits{
		// Nothing calls it before New has returned.
		Pinned: func(ctx context.Context) ([]string, error) { return m.pinned(ctx) },
		MayMove: func(ctx context.Context, name string) error {
			leading, err := m.Term()
			if err != nil {
				return err
			}
			return leading.MayMoveImage(ctx, name)
		},
		Unused: func(ctx context.Context, name, digest string) error {
			leading, err := m.Term()
			if err != nil {
				return err
			}
			return leading.ImageUnused(ctx, name, digest)
		},
		TotalBytes: int64(s.imageQuota), UserBytes: int64(s.userImageQuota),
	})
	if err != nil {
		return nil, err
	}
	known, err := s.knownStore()
	if err != nil {
		return nil, errors.Join(err, m.images.Close())
	}
	m.ResourceManager, err = resourcemanager.New(ctx, resourcemanager.Config{
		Dir: s.dir, Store: known, Listen: s.listen, Advertise: s.advertise, Zone: s.zone, Version: version,
		NodeTimeout: s.nodeTimeout, ReportInterval: s.reportInterval, KeyRotation: s.keyRotation, EventRetention: s.eventRetention,
		AllowHostNetwork: s.allowHostNetwork, AllowInsecure: s.insecure, Queues: s.queues, Record: s.record,
		Images: m.images,
		Registry: func(epoch int64, observer term.Observer) term.Registry {
			made := registry.New(epoch << 32)
			made.Observe(observer)
			return made
		},
		Logger: log,
	})
	if err != nil {
		return nil, errors.Join(addressInUse(err, "listen"), m.images.Close())
	}
	if err := s.noteStore(m.StoreID()); err != nil {
		ended, end := context.WithCancel(context.Background())
		end()
		return nil, errors.Join(err, m.Run(ended))
	}
	return m, nil
}

// knownStore is the expected store; zero at the first start.
func (s *managerSettings) knownStore() (known records.ID, err error) {
	if s.notes == nil || s.notes.Store == "" {
		return known, nil
	}
	known, ok := records.ParseID(s.notes.Store)
	if !ok {
		return known, fmt.Errorf("%s has %q, which is not the id of a store; restore the file and its copy from a backup", s.notesFile, s.notes.Store)
	}
	return known, nil
}

// noteStore stores the store's id.
func (s *managerSettings) noteStore(store records.ID) error {
	if s.notes == nil {
		return nil
	}
	s.notes.Store = store.String()
	return writeNotes(s.notesFile, s.notes)
}

// Run serves until ctx ends. SIGHUP reads the queue file again.
func (m *manager) Run(ctx context.Context) error {
	if m.followsFile {
		hangUps := make(chan os.Signal, 1)
		signal.Notify(hangUps, syscall.SIGHUP)
		defer signal.Stop(hangUps)
		ended := make(chan struct{})
		defer close(ended)
		go func() {
			for {
				select {
				case <-hangUps:
					if leading, err := m.Term(); err == nil { // the next term reads it by itself
						leading.RereadQueues()
					}
				case <-ended:
					return
				}
			}
		}()
	}
	return errors.Join(m.ResourceManager.Run(ctx), m.images.Close())
}

// pinned lists the digests of the images that apps run or may roll back to.
func (m *manager) pinned(ctx context.Context) ([]string, error) {
	leading, err := m.Term()
	if err != nil {
		return nil, err
	}
	if len(leading.Zone().GetLosses()) > 0 {
		return nil, fmt.Errorf("the zone has lost records, and which images are needed is not known until \"mammoth store accept\": %w", errdefs.ErrUnavailable)
	}
	var digests []string
	add := func(spec *apiv1.AppSpec) {
		for _, role := range spec.GetRoles() {
			digests = append(digests, role.GetImageDigest())
		}
	}
	for _, app := range leading.AllApps() {
		add(app.GetSpec())
		history, err := leading.History(ctx, app.GetName())
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, version := range history.GetVersions() {
			add(version.GetSpec())
		}
	}
	return digests, nil
}

// nodes are those that the zone has.
func (m *manager) nodes(ctx context.Context) ([]*apiv1.Node, error) {
	leading, err := m.Term()
	if err != nil {
		return nil, err
	}
	return leading.AllNodes(), nil
}

// byteCount is a flag's amount of disk.
type byteCount int64

// String implements pflag.Value; without a value the flag has no default to show.
func (b *byteCount) String() string {
	if *b == 0 {
		return ""
	}
	return resource.FormatBytes(int64(*b))
}

// Set implements pflag.Value.
func (b *byteCount) Set(text string) error {
	bytes, err := resource.ParseBytes(text)
	if err == nil && bytes == 0 {
		err = errors.New("nothing could be stored; write for example 10GiB")
	}
	*b = byteCount(bytes)
	return err
}

// Type implements pflag.Value.
func (*byteCount) Type() string { return "size" }
