package world

// Plant is a fault of the program itself that a run is given, to see that a law finds it.
type Plant string

const (
	// StoreLies: the store acknowledges what it has not brought to the disk.
	StoreLies Plant = "the store acknowledges before it syncs"
	// StoreTears: of a batch that was being written when the ResourceManager was killed, the first half is on the disk.
	StoreTears Plant = "the store writes half a batch"
	// EpochStands: the store does not count how often it was opened.
	EpochStands Plant = "the store does not count epochs"
	// TellsBeforeItStores: the ResourceManager tells what a turn has decided, and then stores it.
	TellsBeforeItStores Plant = "the ResourceManager tells before it stores"
	// BeatsAreNotHeard: the ResourceManager does not hear that nodes are alive.
	BeatsAreNotHeard Plant = "the ResourceManager does not hear nodes"
	// RegistryKeeps: the registry keeps endpoints that were withdrawn.
	RegistryKeeps Plant = "the registry keeps withdrawn endpoints"
	// BalancerLies: balancers confirm what they have not applied.
	BalancerLies Plant = "a balancer confirms before it applies"
	// StartsTwice: a container that is started starts on another node too.
	StartsTwice Plant = "a container starts on two nodes"
	// StartsAgain: an engine starts a container again that has ended.
	StartsAgain Plant = "a container that has ended starts again"
	// GoneTooEarly: a node says that a container is gone while it is still ending.
	GoneTooEarly Plant = "a node reports a container gone too early"
	// NodeIsDeaf: a node drops commands to stop a container.
	NodeIsDeaf Plant = "a node drops commands"
	// LateStops: a container ends minutes after it was to end.
	LateStops Plant = "a node stops containers minutes late"
	// NodeOverstates: a node says that it has more than it has.
	NodeOverstates Plant = "a node says that it has more than it has"
	// ReapsAll: the ResourceManager has a node that registers end everything.
	ReapsAll Plant = "a node is told to end what it may keep"
	// OldMasterActs: the ResourceManager goes on answering an attempt that was replaced.
	OldMasterActs Plant = "an attempt that was replaced is still answered"
)

// Planted are all of them, each with the law that has to find it.
var Planted = []struct {
	Plant Plant
	Law   string
}{
	{StoreTears, "start"},
	{EpochStands, "fault"},
	{TellsBeforeItStores, "stored"},
	{EpochStands, "lease"},
	{StartsTwice, "once"},
	{StartsAgain, "once"},
	{NodeOverstates, "capacity"},
	{GoneTooEarly, "gone"},
	{ReapsAll, "kept"},
	{StoreLies, "kept"},
	{RegistryKeeps, "endpoint"},
	{BalancerLies, "drain"},
	{OldMasterActs, "attempt"},
	{LateStops, "notice"},
	{LateStops, "hand-back"},
	{StoreLies, "acknowledged"},
	{NodeIsDeaf, "rest"},
	{BeatsAreNotHeard, "rest"},
}
