package adapter

// encoders are models that embed texts. In the reference each is inside another module.
var encoders = family{
	name:  "encoder",
	types: encoderTypes,
	inner: []string{"ministral3"},
	architectures: []string{
		"LlamaBidirectionalModel", "Ministral3BidirectionalModel", "Mistral3BidirectionalModel",
	},
	views: []view{{layout: LayoutNative, prefixes: insideEncoder, marks: []string{"^model."}}},
}

// crossEncoders are models like them with a head that ranks texts.
var crossEncoders = family{
	name:  "cross_encoder",
	types: encoderTypes,
	inner: []string{"ministral3"},
	plain: []string{"score."},
	views: []view{{
		layout: LayoutNative, prefixes: insideEncoder,
		marks: []string{"^model.model.", "^model.score."},
	}},
}

var encoderTypes = []string{"llama_bidirec", "ministral3_bidirec", "mistral3_bidirec"}

// mistral3Reranker is Mistral 3 with a head that ranks texts. Published checkpoints have the head
// in the language model, where vLLM expects it.
var mistral3Reranker = family{
	name:  "mistral3_reranker",
	types: []string{"mistral3", "mistral3_bidirec"},
	inner: []string{"ministral3", "ministral3_bidirec"},
	plain: []string{"score."},
	architectures: []string{
		"Mistral3ForSequenceClassification", "Mistral3VLBidirectionalForSequenceClassification",
	},
	views: []view{{
		layout: LayoutNative,
		prefixes: append([]rename{
			{"^language_model.score.weight$", "model.score.weight"},
		}, insideEncoder...),
		marks: []string{"^model.model.", "^model.score."},
	}},
}

// insideEncoder puts the name of the module that holds the model before every key.
var insideEncoder = []rename{{"^", "model."}}
