// franz-go.
package main

import (
	"context"
	"errors"
	"time"

	"corelog/clients/common"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

var (
	ctx    = context.Background()
	codecs = map[string]kgo.CompressionCodec{
		"none":   kgo.NoCompression(),
		"gzip":   kgo.GzipCompression(),
		"snappy": kgo.SnappyCompression(),
		"lz4":    kgo.Lz4Compression(),
		"zstd":   kgo.ZstdCompression(),
	}
)

func connect(bootstrap string, more ...kgo.Opt) *kgo.Client {
	return common.Value(kgo.NewClient(append(more, kgo.SeedBrokers(bootstrap))...))
}

func write(bootstrap, topic, codec string, records func(func(common.Record) bool)) {
	client := connect(bootstrap, kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(codecs[codec]), kgo.ProducerLinger(5*time.Millisecond))
	defer client.Close()
	for record := range records {
		sent := &kgo.Record{Topic: topic, Partition: record.Partition, Key: record.Key, Value: record.Value}
		sent.Timestamp = time.UnixMilli(record.Timestamp)
		for _, header := range record.Headers {
			sent.Headers = append(sent.Headers, kgo.RecordHeader(header))
		}
		client.Produce(ctx, sent, func(_ *kgo.Record, err error) { common.Must(err) })
	}
	common.Must(client.Flush(ctx))
}

func read(bootstrap string, from int64, topics []string, show func(common.Record)) {
	admin := kadm.NewClient(connect(bootstrap))
	starts := common.Value(admin.ListStartOffsets(ctx, topics...))
	if from >= 0 {
		starts = common.Value(admin.ListOffsetsAfterMilli(ctx, from, topics...))
	}
	left := map[string]map[int32]int64{}
	reading := map[string]map[int32]kgo.Offset{}
	count := 0
	common.Value(admin.ListEndOffsets(ctx, topics...)).Each(func(end kadm.ListedOffset) {
		common.Must(end.Err)
		start, _ := starts.Lookup(end.Topic, end.Partition)
		common.Must(start.Err)
		if start.Offset < end.Offset {
			if left[end.Topic] == nil {
				left[end.Topic], reading[end.Topic] = map[int32]int64{}, map[int32]kgo.Offset{}
			}
			left[end.Topic][end.Partition] = end.Offset
			reading[end.Topic][end.Partition] = kgo.NewOffset().At(start.Offset)
			count++
		}
	})
	admin.Close()
	if count == 0 {
		return
	}
	client := connect(bootstrap, kgo.ConsumePartitions(reading))
	defer client.Close()
	for count > 0 {
		fetches := client.PollFetches(ctx)
		common.Must(fetches.Err())
		fetches.EachRecord(func(record *kgo.Record) {
			end := left[record.Topic][record.Partition]
			if record.Offset < end {
				show(shown(record))
			}
			if record.Offset+1 == end {
				count--
			}
		})
	}
}

func shown(record *kgo.Record) common.Record {
	found := common.Record{Topic: record.Topic, Partition: record.Partition, Offset: record.Offset}
	found.Timestamp, found.Key, found.Value = record.Timestamp.UnixMilli(), record.Key, record.Value
	for _, header := range record.Headers {
		found.Headers = append(found.Headers, common.Header(header))
	}
	return found
}

func group(bootstrap, topic, name string, leave <-chan struct{}) {
	var owned common.Owned
	add := func(_ context.Context, _ *kgo.Client, added map[string][]int32) { owned.Add(added[topic]...) }
	remove := func(_ context.Context, _ *kgo.Client, removed map[string][]int32) { owned.Remove(removed[topic]...) }
	client := connect(bootstrap, kgo.ConsumerGroup(name), kgo.ConsumeTopics(topic),
		kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.OnPartitionsAssigned(add), kgo.OnPartitionsRevoked(remove),
		kgo.OnPartitionsLost(remove), kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(500*time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll())
	for {
		polling, stop := context.WithTimeout(ctx, 200*time.Millisecond)
		fetches := client.PollFetches(polling)
		stop()
		fetches.EachRecord(func(record *kgo.Record) { common.Say("at", record.Partition, record.Offset) })
		if err := client.CommitUncommittedOffsets(ctx); err != nil {
			// A rebalance came first: whoever has the partition now reads them again.
			common.Say("uncommitted", err)
		}
		client.AllowRebalance()
		select {
		case <-leave:
			client.Close()
			return
		default:
		}
	}
}

func refusal(bootstrap, topic string) int {
	// The bound is to be the server's, not the client's, and what is compressed would be small.
	client := connect(bootstrap, kgo.ProducerBatchMaxBytes(10_000_000), kgo.UnknownTopicRetries(1),
		kgo.ProducerBatchCompression(kgo.NoCompression()))
	defer client.Close()
	var refused *kerr.Error
	err := client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: make([]byte, 200_000)}).FirstErr()
	if errors.As(err, &refused) {
		return int(refused.Code)
	}
	common.Must(err)
	return 0
}

func main() {
	common.Client{Write: write, Read: read, Group: group, Errors: refusal}.Main()
}
