package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/mammoth-os/mammoth/companions/balancer"
	"github.com/mammoth-os/mammoth/companions/dns"
	"github.com/mammoth-os/mammoth/companions/haproxy"
	"github.com/mammoth-os/mammoth/companions/nginx"
	"github.com/mammoth-os/mammoth/companions/zookeeper"
	"github.com/mammoth-os/mammoth/internal/credentials"
	"github.com/mammoth-os/mammoth/internal/manifest"
	"github.com/mammoth-os/mammoth/internal/sockets"
	"github.com/mammoth-os/mammoth/internal/zk"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// companion is a program that runs beside the zone until its context ends.
type companion interface {
	Run(ctx context.Context) error
}

// companionCommands run companions of a zone, alone or as instances of companion apps.
type companionCommands struct {
	streams
	env func(string) string
}

func (c *companionCommands) companionCommand() *cobra.Command {
	return group("companion", "Run what routes to the zone's apps, or copies its registry",
		c.nginxCommand(), c.haproxyCommand(), c.zookeeperCommand(), c.dnsCommand())
}

// companionDaemon builds the command of a companion. set adds its flags; make is called after they are parsed.
func (c *companionCommands) companionDaemon(cmd *cobra.Command, make func(ctx context.Context, zone *grpc.ClientConn, log *slog.Logger) (companion, string, error)) *cobra.Command {
	daemon := &daemonFlags{}
	var manager string
	cmd.Args = noArgs
	cmd.Long += `

Every setting is a flag, and can stand in the file that --config names, where
--lost-after is lostAfter.`
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		log, err := daemon.load(c.streams, cmd)
		if err != nil {
			return err
		}
		conn, err := dialZone(manager)
		if err != nil {
			return err
		}
		defer conn.Close() //nolint:errcheck // an error does not matter any more
		run, what, err := make(cmd.Context(), conn, log)
		if err != nil {
			return err
		}
		fmt.Fprintln(c.out, what)
		return run.Run(cmd.Context())
	}
	addressVar(cmd.Flags(), addressFlag{&manager, atPorts}, "resourcemanager", c.told("MAMMOTH_RESOURCEMANAGER", defaultServer), "the ResourceManager's address")
	daemon.add(cmd, "info")
	return cmd
}

// told is a variable of a companion app's container, or else the default of a companion outside a zone.
func (c *companionCommands) told(name, otherwise string) string {
	if value := c.env(name); value != "" {
		return value
	}
	return otherwise
}

// balancerName is the balancer's name in a companion app: the role's, and its node's.
func (c *companionCommands) balancerName(otherwise string) string {
	if state, node := c.env("MAMMOTH_STATE"), c.env("MAMMOTH_NODE"); state != "" && node != "" {
		return filepath.Base(state) + "." + node
	}
	return otherwise
}

// readyMark returns a function that reports to the health check of a companion app that the companion works: by a file in the
// container's working directory. Nil outside a companion app.
func (c *companionCommands) readyMark() func() {
	if c.env("MAMMOTH_STATE") == "" {
		return nil
	}
	return func() { _ = os.WriteFile(manifest.ReadyMark, nil, 0o644) }
}

// appEnds returns a function that asks the zone whether the companion's app is being stopped or removed. Nil outside a
// companion app.
func (c *companionCommands) appEnds(zone grpc.ClientConnInterface) func() bool {
	name := c.env("MAMMOTH_APP")
	if name == "" || c.env("MAMMOTH_STATE") == "" {
		return nil
	}
	return func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		app, err := apiv1.NewAppsClient(zone).GetApp(ctx, &apiv1.GetAppRequest{Name: name})
		if err != nil {
			return status.Code(err) == codes.NotFound
		}
		return ends(app) || app.GetState() == apiv1.App_STOPPED || app.GetState() == apiv1.App_REMOVED
	}
}

// dialZone prepares a connection for a companion. Frequent pings detect a dead ResourceManager behind a proxy.
func dialZone(address string) (*grpc.ClientConn, error) {
	return credentials.Dial(address, grpc.WithUserAgent("mammoth/"+version),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}))
}

func (c *companionCommands) nginxCommand() *cobra.Command {
	s, attach := nginx.Config{}, nginx.Attach{}
	cmd := c.companionDaemon(&cobra.Command{
		Use:   "nginx",
		Short: "Keep an nginx in step with the zone",
		Long: `Nginx starts an nginx in a folder of its own, or takes over the one that runs there, and lets it route to
the zone's apps. When the companion ends, nginx keeps serving.

With --attach it starts none: it adds one file to an nginx that others run and configure, and reloads that.`,
		Example: `  mammoth companion nginx --dir /var/lib/mammoth-nginx --listen 0.0.0.0:80
  mammoth companion nginx --dir /var/lib/mammoth-nginx --listen 0.0.0.0:80 --attach /etc/nginx/nginx.conf`,
	}, func(_ context.Context, zone *grpc.ClientConn, log *slog.Logger) (companion, string, error) {
		s.Log, s.Applied = log, c.readyMark()
		switch {
		case attach.Config != "":
			s.Attach, s.IsFinal = &attach, c.appEnds(zone)
		case attach.Include != "" || attach.Pid != "":
			return nil, "", usagef("--include and --pid are of an nginx that others run; name its configuration with --attach too")
		}
		dir, err := companionFolder("nginx", s.Dir)
		if err != nil {
			return nil, "", err
		}
		s.Dir = dir
		run, err := nginx.New(s, zone)
		if s.Attach != nil {
			return run, fmt.Sprintf("the nginx of %s listens at %s", attach.Config, s.Listen), err
		}
		return run, "nginx listens at " + s.Listen, err
	})
	flags := cmd.Flags()
	flags.StringVar(&s.Name, "name", c.balancerName("nginx"), "the balancer's name in the zone, the same at every start")
	flags.StringVar(&s.Dir, "dir", c.told("MAMMOTH_STATE", ""), "a folder for nginx's configuration, logs and sockets, and nothing else")
	addressVar(flags, addressFlag{&s.Listen, onIPPort}, "listen", "127.0.0.1:8080", "the address for HTTP")
	addressVar(flags, addressFlag{&s.TLS, onIPPort}, "tls-listen", "", "the address for TLS (default: none)")
	flags.StringVar(&s.Certificates, "certificates", "", "a folder of NAME.crt and NAME.key")
	flags.StringVar(&s.Program, "program", "nginx", "the nginx to run")
	flags.IntVar(&s.Workers, "workers", 0, "worker processes (default: one for each core)")
	s.LostAfter = 30 * time.Second
	lengthVar(flags, &s.LostAfter, "lost-after", "how long the zone waits for this balancer when it cannot be reached")
	s.KeepOld = balancer.DefaultKeepOld
	lengthVar(flags, &s.KeepOld, "keep-old", "how long connections may continue after a change of the routes; an attached nginx has its own setting")
	flags.IntVar(&s.MaxOld, "max-old", 0, "how many workers may serve such connections, the oldest are ended first (default: 64, or 16 for each worker)")
	flags.BoolVar(&s.StopOnExit, "stop-nginx", false, "end nginx with the companion; of an attached one, take the file away")
	flags.StringVar(&attach.Config, "attach", "", "the main configuration of an nginx that others run, to add to it instead of starting one")
	flags.StringVar(&attach.Include, "include", "", "the file to add, which that configuration includes inside http (default /etc/nginx/conf.d/mammoth.conf)")
	flags.StringVar(&attach.Pid, "pid", "", "that nginx's pid file (default /run/nginx.pid)")
	must(cmd.MarkFlagDirname("dir"))
	must(cmd.MarkFlagDirname("certificates"))
	return cmd
}

func (c *companionCommands) haproxyCommand() *cobra.Command {
	s := haproxy.Config{}
	cmd := c.companionDaemon(&cobra.Command{
		Use:     "haproxy",
		Short:   "Keep a HAProxy in step with the zone",
		Long:    "Haproxy starts a HAProxy in a folder of its own, or takes over the one that runs there, and lets it route to\nthe zone's apps. When the companion ends, HAProxy keeps serving.",
		Example: "  mammoth companion haproxy --dir /var/lib/mammoth-haproxy --listen 0.0.0.0:80",
	}, func(_ context.Context, zone *grpc.ClientConn, log *slog.Logger) (companion, string, error) {
		s.Log, s.Applied = log, c.readyMark()
		dir, err := companionFolder("haproxy", s.Dir)
		if err != nil {
			return nil, "", err
		}
		s.Dir = dir
		run, err := haproxy.New(s, zone)
		return run, "HAProxy listens at " + s.Listen, err
	})
	flags := cmd.Flags()
	flags.StringVar(&s.Name, "name", c.balancerName("haproxy"), "the balancer's name in the zone, the same at every start")
	flags.StringVar(&s.Dir, "dir", c.told("MAMMOTH_STATE", ""), "a folder for HAProxy's configuration and sockets, and nothing else")
	addressVar(flags, addressFlag{&s.Listen, onIPPort}, "listen", "127.0.0.1:8080", "the address for HTTP")
	addressVar(flags, addressFlag{&s.TLS, onIPPort}, "tls-listen", "", "the address for TLS (default: none)")
	flags.StringVar(&s.Certificates, "certificates", "", "a folder of NAME.crt and NAME.key")
	flags.StringVar(&s.Program, "program", "haproxy", "the HAProxy to run")
	s.LostAfter = 30 * time.Second
	lengthVar(flags, &s.LostAfter, "lost-after", "how long the zone waits for this balancer when it cannot be reached")
	s.KeepOld = balancer.DefaultKeepOld
	lengthVar(flags, &s.KeepOld, "keep-old", "how long connections may continue after a change of hosts, paths or ports")
	flags.IntVar(&s.MaxOld, "max-old", 32, "how many processes may serve such connections, the oldest are ended first")
	flags.BoolVar(&s.StopOnExit, "stop-haproxy", false, "end HAProxy with the companion")
	must(cmd.MarkFlagDirname("dir"))
	must(cmd.MarkFlagDirname("certificates"))
	return cmd
}

// companionFolder is the balancer's folder as an absolute path.
func companionFolder(name, dir string) (string, error) {
	if dir == "" {
		return "", usagef("`mammoth companion %s` needs --dir, a folder of its own", name)
	}
	return filepath.Abs(dir)
}

func (c *companionCommands) zookeeperCommand() *cobra.Command {
	s := zookeeper.Config{}
	cmd := c.companionDaemon(&cobra.Command{
		Use:   "zookeeper",
		Short: "Copy the zone's registry into ZooKeeper",
		Long: `Zookeeper keeps the zone's services in ZooKeeper in the format of Apache Curator's service
discovery. With MAMMOTH_ZOOKEEPER_DIGEST, USER:PASSWORD, only the zone can change the entries.`,
		Example: "  mammoth companion zookeeper --zookeeper 127.0.0.1:2181",
	}, func(ctx context.Context, zone *grpc.ClientConn, log *slog.Logger) (companion, string, error) {
		if err := checkServers("--zookeeper", s.ZooKeeper.Servers); err != nil {
			return nil, "", err
		}
		if s.Zone == "" {
			answer, err := apiv1.NewZonesClient(zone).GetZone(ctx, &apiv1.GetZoneRequest{}, grpc.WaitForReady(true))
			if err != nil {
				return nil, "", fmt.Errorf("ask the ResourceManager for the zone's name, which --zone gives too: %w", err)
			}
			s.Zone = answer.GetName()
		}
		s.Log, s.ZooKeeper.Log, s.ZooKeeper.Digest = log, log, c.env("MAMMOTH_ZOOKEEPER_DIGEST")
		run, err := zookeeper.New(s, zone)
		return run, fmt.Sprintf("the registry of zone %s is copied to ZooKeeper at %s, below %s", s.Zone, strings.Join(s.ZooKeeper.Servers, ","), s.ZooKeeper.Chroot+s.Path), err
	})
	flags := cmd.Flags()
	flags.StringSliceVar(&s.ZooKeeper.Servers, "zookeeper", []string{"127.0.0.1:2181"}, "ZooKeeper's servers, HOST:PORT, with commas between")
	flags.StringVar(&s.ZooKeeper.Chroot, "chroot", "", "a node that everything is below")
	flags.StringVar(&s.Path, "path", zookeeper.DefaultPath, "the node that services are below")
	flags.StringVar(&s.Zone, "zone", "", "the zone's name, which marks the entries (default: the ResourceManager's)")
	s.ZooKeeper.SessionTimeout = 10 * time.Second
	lengthVar(flags, &s.ZooKeeper.SessionTimeout, "session-timeout", "how long ZooKeeper waits for this client")
	return cmd
}

func (c *companionCommands) dnsCommand() *cobra.Command {
	s := dns.Config{}
	cmd := c.companionDaemon(&cobra.Command{
		Use:     "dns",
		Short:   "Answer DNS queries about the zone's services",
		Long:    "Dns answers A, AAAA and SRV queries: web.service.mammoth is the instances of web.",
		Example: "  mammoth companion dns --listen 127.0.0.1:8053",
	}, func(_ context.Context, zone *grpc.ClientConn, log *slog.Logger) (companion, string, error) {
		s.Log = log
		run, err := dns.New(s, zone)
		if err != nil {
			return nil, "", err
		}
		return run, "the DNS server listens at " + run.Addr(), nil
	})
	flags := cmd.Flags()
	addressVar(flags, addressFlag{&s.Listen, onPort}, "listen", "127.0.0.1:8053", "the address for UDP and TCP")
	flags.StringVar(&s.Domain, "domain", "mammoth", "the domain that it knows")
	s.TTL = 2 * time.Second
	lengthVar(flags, &s.TTL, "ttl", "how long an answer may be kept")
	return cmd
}

// besideSettings are the companions that run in the process of `mammoth up`.
type besideSettings struct {
	nginx, dns             bool
	nginxListen, dnsListen string
	nginxProgram           string
	certificates, nginxTLS string
	zookeeper              []string
	dir, zone, digest      string
}

func (s *besideSettings) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&s.nginx, "nginx", false, "run an nginx of its own that routes to apps; it ends with the zone")
	addressVar(flags, addressFlag{&s.nginxListen, onIPPort}, "nginx-listen", "", "nginx's address (default: a port of 127.0.0.1 that is free at the first start)")
	addressVar(flags, addressFlag{&s.nginxTLS, onIPPort}, "nginx-tls-listen", "", "nginx's address for TLS (default: none)")
	flags.StringVar(&s.certificates, "certificates", "", "a folder of NAME.crt and NAME.key for nginx")
	flags.StringVar(&s.nginxProgram, "nginx-program", "nginx", "the nginx to run")
	flags.BoolVar(&s.dns, "dns", false, "answer DNS queries about services")
	addressVar(flags, addressFlag{&s.dnsListen, onPort}, "dns-listen", "", "the address for DNS (default: a port of 127.0.0.1 that is free at the first start)")
	flags.StringSliceVar(&s.zookeeper, "zookeeper", nil, "copy the registry to these ZooKeeper servers, HOST:PORT with commas between")
	must(cmd.MarkFlagDirname("certificates"))
}

// validate refuses settings of a companion that is not enabled.
func (s *besideSettings) validate() error {
	for _, one := range []struct{ flag, value, of string }{
		{"--nginx-listen", s.nginxListen, "--nginx"},
		{"--nginx-tls-listen", s.nginxTLS, "--nginx"},
		{"--certificates", s.certificates, "--nginx"},
		{"--dns-listen", s.dnsListen, "--dns"},
	} {
		if wanted := one.of == "--nginx" && s.nginx || one.of == "--dns" && s.dns; one.value != "" && !wanted {
			return usagef("%s does nothing without %s", one.flag, one.of)
		}
	}
	return checkServers("--zookeeper", s.zookeeper)
}

// besideNotes are the addresses that were chosen at the first start, so that they stay the same.
type besideNotes struct {
	Nginx string `json:"nginx,omitempty"`
	DNS   string `json:"dns,omitempty"`
}

// besideFile has the addresses, nginxFolder is the folder of the zone's own nginx.
const (
	besideFile  = "companions.json"
	nginxFolder = "nginx"
)

// choose sets missing addresses: the earlier one, or a free one.
func (s *besideSettings) choose() error {
	path := filepath.Join(s.dir, besideFile)
	notes := &besideNotes{}
	if err := keepNotes(path, notes); err != nil {
		return err
	}
	for _, one := range []struct {
		wanted       bool
		given, noted *string
	}{{s.nginx, &s.nginxListen, &notes.Nginx}, {s.dns, &s.dnsListen, &notes.DNS}} {
		if !one.wanted {
			continue
		}
		if *one.given == "" && *one.noted == "" {
			address, err := freeAddress(notes.Nginx, notes.DNS, s.nginxListen, s.dnsListen)
			if err != nil {
				return err
			}
			*one.noted = address
		}
		if *one.given == "" {
			*one.given = *one.noted
		}
		*one.noted = *one.given
	}
	return writeNotes(path, notes)
}

// freeAddress is an address that nobody listens on, and that is not reserved for another companion.
func freeAddress(taken ...string) (string, error) {
	at := func(port int) string { return fmt.Sprint("127.0.0.1:", port) }
	port, err := sockets.FreePort(func(port int) bool { return !slices.Contains(taken, at(port)) })
	if err != nil {
		return "", fmt.Errorf("choose where a companion listens: %w", err)
	}
	return at(port), nil
}

// beside is a companion in the zone's process.
type beside struct {
	companion
	// The name of the companion and its address, for people.
	what string
	// front is the address that accepts connections once it is ready; may be empty.
	front string
}

// make prepares the enabled companions.
func (s *besideSettings) make(zone *grpc.ClientConn, log *slog.Logger) ([]beside, error) {
	var list []beside
	if s.nginx {
		run, err := nginx.New(nginx.Config{
			Dir: filepath.Join(s.dir, nginxFolder), Listen: s.nginxListen, TLS: s.nginxTLS, Certificates: s.certificates,
			Program: s.nginxProgram, StopOnExit: true, Log: log,
		}, zone)
		if err != nil {
			return nil, err
		}
		list = append(list, beside{run, "nginx routes at http://" + s.nginxListen + "/", s.nginxListen})
	}
	if s.dns {
		run, err := dns.New(dns.Config{Listen: s.dnsListen, Log: log}, zone)
		if err != nil {
			return nil, err
		}
		list = append(list, beside{run, "DNS is answered at " + run.Addr(), ""})
	}
	if len(s.zookeeper) > 0 {
		run, err := zookeeper.New(zookeeper.Config{
			ZooKeeper: zk.Config{Servers: s.zookeeper, Digest: s.digest, Log: log}, Zone: s.zone, Log: log,
		}, zone)
		if err != nil {
			return nil, err
		}
		list = append(list, beside{run, fmt.Sprintf("the registry is copied to ZooKeeper at %s, below %s", strings.Join(s.zookeeper, ","), zookeeper.DefaultPath), ""})
	}
	return list, nil
}

// awaitFront reports whether a companion accepts connections before ctx ends.
func (b beside) awaitFront(ctx context.Context) bool {
	look := time.NewTicker(readyLook)
	defer look.Stop()
	for b.front != "" {
		if conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", b.front); err == nil {
			_ = conn.Close()
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-look.C:
		}
	}
	return true
}
