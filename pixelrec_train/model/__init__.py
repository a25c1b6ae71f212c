from pixelrec_train.libraries import spare_sklearn

spare_sklearn()
