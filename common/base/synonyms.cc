#include "common/base/synonyms.h"

#include <algorithm>
#include <sstream>

namespace varscope {
namespace {

struct Row {
  const char* here;    // as candidates spell it
  const char* others;  // in lower case, without `-` and `_`; separated by blanks
};

// A word may stand in several rows; the first whose name is a candidate counts.
constexpr Row kRows[] = {
    // sections and keys of a job
    {"optimizer", "optim optimiser opt solver"},
    {"data", "dataset datasets input inputs"},
    {"model", "net network architecture"},
    {"train", "training trainer fit"},
    {"test", "val valid validation eval evaluation dev"},
    {"checkpoint", "checkpoints ckpt checkpointing saver save"},
    {"output", "logging log"},
    {"warm_start", "warmstart initfrom finetune pretrained"},
    {"loss", "criterion objective lossfunction lossfn cost"},
    {"learning_rate", "lr eta stepsize rate alpha baselr learningrate initiallr"},
    {"batch", "batchsize bs minibatch minibatchsize globalbatch globalbatchsize trainbatchsize"},
    {"eval_batch", "evalbatchsize testbatch testbatchsize valbatchsize"},
    {"epochs", "nepochs numepochs nepoch epoch maxepochs passes"},
    {"max_steps",
     "steps numsteps nsteps maxiter maxiters iterations niter totalsteps trainsteps maxiterations"},
    {"seed", "randomseed rngseed randomstate rng"},
    {"run_dir", "outputdir outdir logdir workdir savedir rundirectory modeldir folder dir path"},
    {"dir", "directory folder path checkpointdir ckptdir savedir outputdir"},
    {"every_steps",
     "savesteps saveeverysteps saveevery interval frequency every savefreq savecheckpointssteps"},
    {"every_seconds", "savesecs saveseconds savecheckpointssecs everysecs"},
    {"keep", "maxtokeep keepmax savetotallimit keepcheckpointmax keeplast keepn"},
    {"keep_best", "savebestonly best savebest"},
    {"log_every_steps", "logsteps logevery loginterval logeverynsteps loggingsteps"},
    {"eval_every_epochs", "evalevery evalinterval evalfrequency validateevery"},
    {"servers", "nservers numservers ps nps numps parameterservers psservers"},
    {"backup_workers", "backup backups backupworker numbackups nbackups spareworkers"},
    {"consistency", "mode sync async synchronous asynchronous syncmode consistencymode"},
    {"staleness", "slack stalenessbound maxstaleness bound"},
    {"record", "replay recording"},
    {"drain_every_steps", "drainevery drain drainsteps flushevery flusheverysteps"},
    {"compression", "gradientcompression compress gradcompression quantization"},
    {"blas_threads", "threads nthreads numthreads ompthreads ompnumthreads"},
    {"stall_timeout_s", "timeout timeouts stalltimeout heartbeattimeout"},
    {"step_timeout_s", "steptimeout"},
    {"timeout_s", "timeout timeoutseconds"},
    {"vocabulary", "vocab vocabsize vocabularysize numembeddings inputdim nvocab"},
    {"momentum", "mu mom"},
    {"beta1", "b1 betas"},
    {"beta2", "b2"},
    {"epsilon", "eps"},
    {"initial_accumulator", "initialaccumulatorvalue initialaccumulator"},
    {"l1", "l1regularizationstrength l1regularization lambda1 lambdal1"},
    {"l2", "l2regularizationstrength l2regularization lambda2 lambdal2"},
    {"weight_decay", "wd l2 decay weightdecay"},
    {"schedule", "scheduler lrschedule lrscheduler learningrateschedule lrdecay"},
    {"clip",
     "gradclip gradientclip clipnorm gradientclipping gradclipnorm clipgrad clipgradnorm maxgradnorm"},
    {"limit", "maxnorm clipnorm value max norm clipvalue threshold"},
    {"warmup_steps", "warmup nwarmup numwarmupsteps"},
    {"decay_steps", "totalsteps tmax steps"},
    {"boundaries", "milestones"},
    {"factor", "gamma decayfactor"},
    {"rate", "decayrate gamma"},
    {"samples", "n nsamples numsamples size limit"},
    {"steps", "sequencelength seqlen numsteps bptt timesteps unrollsteps"},
    // keys of layers
    {"units",
     "neurons size hidden hiddensize hiddenunits numunits nunits outfeatures outputsize outputs features dim "
     "width outputdim embeddingdim embeddim nout"},
    {"filters", "outchannels channels numfilters nfilters features outputs"},
    {"kernel", "kernelsize filtersize ksize window size"},
    {"window", "poolsize kernel kernelsize size ksize pool"},
    {"stride", "strides step"},
    {"padding", "pad border"},
    {"activation", "act nonlinearity activationfunction activationfn"},
    {"kind", "function activation fn act"},
    {"initializer",
     "init initialiser kernelinitializer weightinitializer weightsinitializer weightinit kernelinit"},
    {"bias_initializer", "biasinit biasinitialiser"},
    {"regularizer",
     "regulariser kernelregularizer weightregularizer weightsregularizer regularization l2 l1"},
    {"constraint", "kernelconstraint weightconstraint"},
    {"bias", "usebias withbias"},
    {"rate", "p prob probability dropprob droprate dropoutrate dropout"},
    {"momentum", "decay"},
    {"axis", "dim dimension"},
    {"trainable", "requiresgrad frozen freeze"},
    {"reuse", "share shared tie tied"},
    {"repeat", "times n count repeats"},
    {"stddev", "std sigma scale sd"},
    {"depth", "classes numclasses nclasses vocabulary vocabularysize size"},
    {"combiner", "mode reduction pooling aggregation"},
    {"factors", "k rank units dim embeddingdim latentfactors nfactors"},
    {"rank", "projectiondim lowrank"},
    {"mean", "mu loc"},
    {"low", "min minval a minimum"},
    {"high", "max maxval b maximum"},
    // losses
    {"mean_squared_error", "mse l2 l2loss squarederror meansquarederr quadratic mseloss"},
    {"absolute_error", "mae l1 l1loss meanabsoluteerror absolute"},
    {"huber", "smoothl1 smoothl1loss smoothl1error huberloss"},
    {"poisson", "poissonnll poissonnllloss countpoisson counts"},
    {"softmax_cross_entropy",
     "crossentropy categoricalcrossentropy sparsecategoricalcrossentropy softmax nll nllloss ce xent "
     "softmaxloss "
     "crossentropyloss softmaxcrossentropywithlogits sparsesoftmaxcrossentropy negativeloglikelihood"},
    {"sigmoid_cross_entropy",
     "binarycrossentropy bce logistic sigmoid logloss bcewithlogits bcewithlogitsloss bceloss "
     "sigmoidcrossentropywithlogits"},
    // metrics
    {"accuracy", "acc categoricalaccuracy top1"},
    {"top_5", "top5 topk topkaccuracy top5accuracy"},
    {"rmse", "mse rootmeansquarederror meansquarederror"},
    {"mae", "meanabsoluteerror l1 absoluteerror"},
    {"r2", "r2score rsquared coefficientofdetermination r2regression"},
    {"log_loss", "nll crossentropy binarycrossentropy bce"},
    {"perplexity", "ppl"},
    {"confusion_matrix", "confusion"},
    {"precision", "prec"},
    {"recall", "sensitivity"},
    {"auc", "rocauc auroc"},
    // optimizers, schedules, clipping
    {"sgd", "gd gradientdescent vanilla"},
    {"nesterov", "nag nesterovmomentum"},
    {"ftrl", "ftrlproximal ftrlprox followtheregularizedleader"},
    {"rowwise_adagrad", "exactrowwiseadagrad rowwiseadagrad adagradrowwise"},
    {"momentum", "sgdm sgdmomentum heavyball"},
    {"cosine", "cosinedecay cosineannealing cosineannealinglr"},
    {"exponential", "exponentialdecay exponentiallr exp"},
    {"polynomial", "polynomialdecay linear lineardecay poly"},
    {"piecewise", "multistep multisteplr piecewiseconstant"},
    {"step", "steplr stepdecay staircase"},
    {"constant", "none fixed const"},
    {"global_norm", "clipbyglobalnorm globalnorm"},
    {"norm", "clipbynorm l2"},
    {"value", "clipbyvalue"},
    // layers
    {"dense", "linear fc fullyconnected affine innerproduct mlp gemm"},
    {"conv2d", "conv convolution convolution2d convolutional"},
    {"max_pool2d", "maxpool maxpooling maxpooling2d pool pooling pool2d"},
    {"average_pool2d", "avgpool averagepool averagepooling averagepooling2d avgpool2d avgpooling meanpool"},
    {"batch_norm", "batchnormalization bn batchnorm2d batchnorm1d"},
    {"layer_norm", "layernormalization ln norm"},
    {"embedding", "embed embeddings lookup embeddinglookup embeddingbag embeddinglookupsparse"},
    {"one_hot", "onehot onehotencoding categoricalencoding categoryencoding indicator"},
    {"factorization_machine", "fm deepfm secondorder biinteraction"},
    {"cross", "crossnet crosslayer dcn dcnv2 crossnetwork"},
    {"global_average_pool2d",
     "globalaveragepooling globalaveragepooling2d globalavgpool globalavgpool2d gap globalpool "
     "adaptiveavgpool2d"},
    {"activation", "relu sigmoid tanh gelu softplus leakyrelu elu selu swish silu nonlinearity act"},
    {"lstm", "rnn basiclstmcell lstmcell"},
    {"gru", "grucell"},
    {"concat", "concatenate cat merge join"},
    {"reshape", "view"},
    {"flatten", "ravel"},
    {"multiply", "mul product times"},
    {"subtract", "sub minus"},
    {"add", "sum residual plus"},
    // activations
    {"linear", "none identity"},
    {"leaky_relu", "lrelu"},
    {"sigmoid", "logistic"},
    {"swish", "silu"},
    {"elu", "exponentiallinear"},
    {"selu", "scaledelu"},
    // initializers, regularizers, constraints
    {"glorot_uniform", "xavier xavieruniform glorot"},
    {"glorot_normal", "xaviernormal"},
    {"he_uniform", "kaiming kaiminguniform he"},
    {"he_normal", "kaimingnormal msra"},
    {"lecun_normal", "lecun"},
    {"normal", "gaussian randomnormal randn"},
    {"truncated_normal", "truncnormal trunc"},
    {"uniform", "randomuniform rand random"},
    {"zeros", "zero"},
    {"ones", "one"},
    {"l1_l2", "elasticnet l1l2"},
    {"l2", "weightdecay ridge"},
    {"l1", "lasso"},
    {"non_neg", "nonnegative positive nonneg"},
    {"fixed_size", "fixed"},
    // data, dtypes, the rest
    {"idx", "mnist images ubyte"},
    {"npy", "numpy array ndarray"},
    {"npz", "savez arrays"},
    {"tfrecord", "tfrecords tfexample example"},
    {"fashion_mnist", "fashion fmnist"},
    {"text", "txt words text8 ptb lm"},
    {"skipgram", "word2vec sgns skip_gram"},
    {"ctr", "clicks criteo click_through"},
    {"digits", "synthetic generated"},
    {"float32", "float fp32 f32 single"},
    {"float64", "double fp64 f64"},
    {"input", "self x autoencoder"},
    {"labels", "label y target targets"},
    {"bsp", "sync synchronous"},
    {"ssp", "stale stalesynchronous boundedstaleness bounded"},
    {"asp", "async asynchronous asynchronousparallel hogwild downpour"},
    {"bf16", "bfloat16 brainfloat"},
    {"fp16", "float16 half f16"},
    {"onebit", "1bit sign signsgd"},
    {"max", "larger higher maximize"},
    {"min", "smaller lower minimize"},
    {"auto", "automatic default"},
    {"on", "true yes"},
    {"off", "false no never"},
    // commands
    {"train", "run start fit"},
    {"eval", "evaluate test predict"},
    {"graph", "show draw model summary"},
    {"config", "check validate explain"},
};

std::string folded(std::string_view word) {
  std::string out;
  for (const char c : word) {
    if (c == '-' || c == '_' || c == ' ') continue;
    out += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return out;
}

bool has_word(const char* list, const std::string& word) {
  std::istringstream words(list);
  for (std::string w; words >> w;) {
    if (w == word) return true;
  }
  return false;
}

}  // namespace

std::string synonym_of(std::string_view word, const std::vector<std::string>& candidates) {
  const std::string wanted = folded(word);
  if (wanted.empty()) return {};
  for (const Row& row : kRows) {
    if (word != row.here && has_word(row.others, wanted) &&
        std::ranges::find(candidates, row.here) != candidates.end())
      return row.here;
  }
  return {};
}

}  // namespace varscope
